"""A run whose keys are refused in the midst of it: no picture gets a row for that."""

import os
import socket

import pytest

from bundles import make_bundle
from labelmill.storage import open_store
from pictures import jpeg_bytes
from promise import assert_the_promise
from proxy import faulty_proxy
from running import label_spec, labelmill, rows_of, start_labelmill, wait_for

COUNT = 512  # eight chunks


@pytest.fixture
def uris(s3):
    store, pictures = open_store(s3), [jpeg_bytes(1200, 900, seed=seed, quality=95) for seed in range(4)]
    for index in range(COUNT):
        store.write(f"inbox/{index:04d}.jpg", pictures[index % 4])
    return [store.address(f"inbox/{index:04d}.jpg") for index in range(COUNT)]


@pytest.fixture
def keys_in(tmp_path):
    """Settings with which the chain finds its keys in a file, and how to write others into it."""
    file = tmp_path / "credentials"

    def write(key_id):
        text = f"[default]\naws_access_key_id = {key_id}\naws_secret_access_key = secret\n"
        (tmp_path / "new").write_text(text)
        (tmp_path / "new").rename(file)

    write("first")
    return write, {"AWS_SHARED_CREDENTIALS_FILE": str(file)}


@pytest.fixture
def without_keys(monkeypatch, s3):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)


def start_and_expire(job, log, proxy, settings, before_it=lambda: None):
    """A run whose keys are no longer taken once it has asked for a third of the pictures."""
    run = start_labelmill("run", job, log=log, AWS_ENDPOINT_URL=proxy.endpoint, **settings)
    try:
        assert wait_for(lambda: sum(key.startswith("inbox/") for _, key in list(proxy.requests)) > COUNT // 3, run)
        before_it()
        proxy.refused["first"] = 400, "ExpiredToken"
        return run.wait(300)
    finally:
        run.kill()
        run.wait()


def test_keys_that_expire_in_the_midst_of_a_run_are_exchanged(
    tmp_path, s3, uris, s3_endpoint, keys_in, without_keys, monkeypatch
):
    write, settings = keys_in
    with faulty_proxy(s3_endpoint, lambda *_: None) as proxy:
        for name, value in {"AWS_ENDPOINT_URL": s3_endpoint, **settings}.items():
            monkeypatch.setenv(name, value)
        make_bundle(f"{s3}/models")
        table = f"{s3}/tables/labels"
        places = {"registry": f"{s3}/models", "images": f"{s3}/inbox", "output": table}
        job = label_spec(tmp_path / "job.yaml", model="tiny@1", **places)
        code = start_and_expire(job, tmp_path / "log", proxy, settings, lambda: write("second"))
        assert code == 0, (tmp_path / "log").read_text()
        assert_the_promise(table, uris)


def test_keys_that_expire_and_have_no_successor_end_the_run_in_one_line(
    tmp_path, registry, s3, uris, s3_endpoint, keys_in, without_keys
):
    _, settings = keys_in
    table = tmp_path / "labels"
    job = label_spec(tmp_path / "job.yaml", registry=registry, model="tiny@1", images=f"{s3}/inbox", output=table)
    with faulty_proxy(s3_endpoint, lambda *_: None) as proxy:
        code = start_and_expire(job, tmp_path / "log", proxy, settings)
    log = (tmp_path / "log").read_text()
    assert code == 1, log
    [said] = [line for line in log.splitlines() if line.startswith("error:")]
    assert socket.gethostname() in said
    assert "ExpiredToken" in said
    assert "Traceback" not in log
    assert {row["status"] for row in rows_of(table)} <= {"ok"}
    keys = {"AWS_ACCESS_KEY_ID": "second", "AWS_SECRET_ACCESS_KEY": "secret"}
    assert labelmill("run", job, **keys).returncode == 0
    os.environ.update(keys)  # undone with the fixtures that set them
    assert_the_promise(table, uris)


def test_access_denied_to_everything_is_one_line_and_to_some_is_their_rows(tmp_path, registry, s3, s3_endpoint):
    store, table = open_store(s3), tmp_path / "labels"
    for index in range(80):
        store.write(f"inbox/{index:04d}.jpg", jpeg_bytes(60, 40, seed=index))
    denied = {f"inbox/{index:04d}.jpg" for index in range(80)}
    job = label_spec(tmp_path / "job.yaml", registry=registry, model="tiny@1", images=f"{s3}/inbox", output=table)

    def run():
        refuse = lambda method, key, number: "forbidden" if method == "GET" and key in denied else None  # noqa: E731
        with faulty_proxy(s3_endpoint, refuse) as proxy:
            return labelmill("run", job, AWS_ENDPOINT_URL=proxy.endpoint)

    done = run()
    assert done.returncode == 1, done.stderr
    [said] = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert socket.gethostname() in said
    assert "AccessDenied" in said
    assert rows_of(table) == []

    denied = {f"inbox/{index:04d}.jpg" for index in range(3)}
    for _ in range(2):  # the second finds none but these to label, and others in the table
        done = run()
        assert done.returncode == 0, done.stderr
    last = {row["uri"]: row["status"] for row in rows_of(table)}
    assert sorted(last.values()) == ["forbidden"] * 3 + ["ok"] * 77
    assert len(rows_of(table)) == 83
