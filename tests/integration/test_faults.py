"""A store that misbehaves, a table that takes no more: the run goes on or ends clearly, and the next one finishes."""

import json
import os
import shutil
import subprocess
from collections import Counter
from contextlib import contextmanager

import pytest

from bundles import make_bundle
from damaged import damaged
from labelmill.storage import open_store
from pictures import jpeg_bytes
from promise import assert_the_promise
from proxy import by_chance, faulty_proxy
from running import data_files, label_spec, labelmill, rows_of, start_labelmill, wait_for

PASSING = {"slow_down": 0.04, "error": 0.04, "reset": 0.04, "truncated": 0.04, "lost": 0.02}


def fill(bucket, count):
    """So many pictures below `inbox`; their uris."""
    store = open_store(bucket)
    for index in range(count):
        store.write(f"inbox/{index:04d}.jpg", jpeg_bytes(60, 40, seed=index))
    return [store.address(f"inbox/{index:04d}.jpg") for index in range(count)]


def receipts(table):
    store = open_store(f"{table}/_labelmill/receipts")
    return [json.loads(store.read(key)) for key in sorted(store.keys()) if key.endswith(".json")]


@pytest.fixture
def s3_job(tmp_path, s3):
    make_bundle(f"{s3}/models")
    table = f"{s3}/tables/labels"
    job = label_spec(
        tmp_path / "label.yaml", registry=f"{s3}/models", model="tiny@1", images=f"{s3}/inbox", output=table
    )
    return table, job


def test_a_run_goes_on_behind_a_failing_store_and_the_next_one_finishes_it(s3, s3_job, s3_endpoint, s3_buckets):
    uris, (table, job) = fill(s3, 100), s3_job
    bucket, draw = s3_buckets.Bucket(s3.removeprefix("s3://")), by_chance(3, **PASSING)

    def meddle(method, key, number):
        if method == "GET" and key == "inbox/0010.jpg":
            return "forbidden"
        if method == "GET" and key == "inbox/0020.jpg":
            bucket.Object(key).delete()
        if method == "GET" and key == "inbox/0030.jpg" and number == 0:
            bucket.put_object(Key=key, Body=jpeg_bytes(60, 40, seed=3000))
        return draw(key, number) if key.startswith(("inbox/", "tables/labels/labelled_on=")) else None

    with faulty_proxy(s3_endpoint, meddle) as proxy:
        done = labelmill("run", job, AWS_ENDPOINT_URL=proxy.endpoint)
    assert done.returncode == 0, done.stderr
    odd = {uris[10]: "forbidden", uris[20]: "missing", uris[30]: "changed"}
    rows = {row["uri"]: row for row in rows_of(table)}
    assert {uri: row["status"] for uri, row in rows.items()} == dict.fromkeys(uris, "ok") | odd
    assert all(rows[uri]["error"] for uri in odd)
    (receipt,) = receipts(table)
    assert receipt["outcome"] == "complete"
    assert set(proxy.faults) == {*PASSING, "forbidden"}
    assert receipt["retries"] >= 0.8 * sum(proxy.faults[fault] for fault in PASSING)  # a few were the driver's own

    assert labelmill("run", job).returncode == 0
    assert_the_promise(table, [uri for uri in uris if uri != uris[20]])
    assert Counter(row["uri"] for row in rows_of(table) if row["status"] != "deleted")[uris[0]] == 1


@pytest.mark.long
def test_pictures_that_the_store_never_gives_are_rows_that_are_tried_again(s3, s3_job, s3_endpoint):
    uris, (table, job) = fill(s3, 130), s3_job
    always = {"inbox/0001.jpg": "stalled", "inbox/0002.jpg": "truncated", "inbox/0003.jpg": "error"}
    draw = by_chance(4, **PASSING, stalled=0.02)

    def meddle(method, key, number):
        return always.get(key) or (draw(key, number) if key.startswith("inbox/") else None)

    with faulty_proxy(s3_endpoint, meddle) as proxy:
        done = labelmill("run", job, timeout_s=600, AWS_ENDPOINT_URL=proxy.endpoint)
    assert done.returncode == 0, done.stderr
    statuses = {row["uri"]: row["status"] for row in rows_of(table)}
    assert statuses == dict.fromkeys(uris, "ok") | dict.fromkeys(uris[1:4], "fetch_failed")
    assert labelmill("run", job).returncode == 0
    assert_the_promise(table, uris)


@pytest.mark.long
def test_a_store_that_gives_nothing_ends_the_run_at_the_failure_budget(s3, s3_job, s3_endpoint):
    uris, (table, job) = fill(s3, 400), s3_job

    def meddle(method, key, number):
        return "forbidden" if key.startswith("inbox/") and key > "inbox/0030" else None

    with faulty_proxy(s3_endpoint, meddle) as proxy:
        done = labelmill("run", job, AWS_ENDPOINT_URL=proxy.endpoint)
    assert done.returncode == 3
    assert "max_failure_rate allows 5.0%: forbidden" in done.stderr
    assert "Traceback" not in done.stderr
    assert labelmill("run", job).returncode == 0
    assert_the_promise(table, uris)


@pytest.mark.long
def test_a_job_that_the_store_slows_down_ends_whole(s3, s3_job, s3_endpoint):
    uris, (table, job) = fill(s3, 200), s3_job
    draw = by_chance(5, slow_down=0.3)
    with faulty_proxy(s3_endpoint, lambda method, key, number: draw(key, number)) as proxy:
        done = labelmill("run", job, timeout_s=600, AWS_ENDPOINT_URL=proxy.endpoint)
    assert done.returncode == 0, done.stderr
    # A store that refuses three in ten whatever their rate costs a few pictures their minute; the next run has them.
    assert {row["status"] for row in rows_of(table)} <= {"ok", "fetch_failed"}
    assert labelmill("run", job).returncode == 0
    assert_the_promise(table, uris)


@pytest.mark.long
def test_a_corpus_of_damaged_pictures_is_one_row_each_and_changes_no_good_row(tmp_path, registry):
    images, tables = tmp_path / "images", {}
    images.mkdir()
    for index in range(200):
        (images / f"{index * 5:04d}.jpg").write_bytes(jpeg_bytes(60, 40, seed=index))
    for kind in ("good", "mixed"):
        if kind == "mixed":
            for index, (_, data) in enumerate(damaged(1, 480)):
                (images / f"{index * 2:04d}-damaged.jpg").write_bytes(data)
        tables[kind] = tmp_path / kind
        job = label_spec(tmp_path / "label.yaml", registry=registry, model="tiny@1", images=images, output=tables[kind])
        done = labelmill("run", job, "--set", "max_failure_rate=1", "--set", "max_pixels=1000000")
        assert done.returncode == 0, done.stderr
    good, mixed = ({row["uri"]: row for row in rows_of(table)} for table in tables.values())
    assert len(assert_the_promise(tables["mixed"], images.iterdir())) == 680
    assert {row["status"] for row in mixed.values()} == {"ok", "unreadable", "unsupported", "too_large"}
    own = ("etag", "size_bytes", "status", "error", "width_px", "height_px", "labels")
    for uri, row in good.items():
        assert [mixed[uri][name] for name in own] == [row[name] for name in own]


# ---- a table that takes no more, in the middle of a run


@pytest.mark.long
@pytest.mark.parametrize("fault", ["forbidden", "full"])
@pytest.mark.parametrize("what", ["tables/labels/labelled_on=", "tables/labels/_delta_log"])
def test_a_bucket_that_takes_no_more_ends_the_run_clearly(s3, s3_job, s3_endpoint, fault, what):
    uris, (table, job) = fill(s3, 400), s3_job
    written = Counter()

    def meddle(method, key, number):
        if method != "PUT" or not key.startswith("tables/labels/"):
            return None
        written[key.split("/")[2]] += 1
        enough = sum(count for name, count in written.items() if name.startswith("labelled_on=")) > 2
        return fault if enough and key.startswith(what) else None

    with faulty_proxy(s3_endpoint, meddle) as proxy:
        done = labelmill("run", job, timeout_s=600, AWS_ENDPOINT_URL=proxy.endpoint)
    _assert_a_clear_end(
        done.returncode, done.stderr, {"forbidden": "AccessDenied", "full": "InsufficientStorage"}[fault], table
    )
    assert {row["uri"] for row in rows_of(table)} < set(uris)
    assert labelmill("run", job).returncode == 0
    assert_the_promise(table, uris)


@pytest.mark.long
def test_a_full_disk_ends_the_run_clearly(tmp_path, registry, slow_store):
    with _small_disk(tmp_path / "disk") as disk:
        table = disk / "labels"
        job = label_spec(tmp_path / "label.yaml", registry=registry, model="tiny@1", images=slow_store, output=table)
        run = start_labelmill("run", job, log=tmp_path / "log")
        assert wait_for(lambda: len(data_files(table)) >= 2, run), (tmp_path / "log").read_text()
        ballast = disk / "ballast"
        with ballast.open("wb", buffering=0) as file:
            while _wrote(file, b"\0" * 4096):
                pass
        code = run.wait(600)
        log = (tmp_path / "log").read_text()
        before = _readable_rows(table)
        ballast.unlink()
        _assert_a_clear_end(code, log, "o space left", table)
        assert labelmill("run", job).returncode == 0
        rows = assert_the_promise(table, slow_store.iterdir())
        assert {row["uri"]: row["run_id"] for row in rows if row["uri"] in before} == before


@pytest.mark.long
@pytest.mark.parametrize("what", ["labelled_on=*", "_delta_log"])
def test_a_folder_that_may_not_be_written_any_more_ends_the_run_clearly(tmp_path, registry, slow_store, what):
    table = tmp_path / "labels"
    job = label_spec(tmp_path / "label.yaml", registry=registry, model="tiny@1", images=slow_store, output=table)
    bound = _like_an_ordinary_user()
    run = start_labelmill("run", job, log=tmp_path / "log", before=bound)
    assert wait_for(lambda: len(data_files(table)) >= 2, run), (tmp_path / "log").read_text()
    (closed,) = table.glob(what)
    closed.chmod(0o555)
    try:
        code = run.wait(600)
        before = _readable_rows(table)
    finally:
        closed.chmod(0o755)
    _assert_a_clear_end(code, (tmp_path / "log").read_text(), "ermission denied", table)
    assert labelmill("run", job).returncode == 0
    rows = assert_the_promise(table, slow_store.iterdir())
    assert {row["uri"]: row["run_id"] for row in rows if row["uri"] in before} == before


def _assert_a_clear_end(code, output, words, table):
    assert code == 1, output
    assert "Traceback" not in output
    (error,) = [line for line in output.splitlines() if line.startswith("error: ")]
    assert words in error
    assert str(table) in error
    assert "the same command goes on from there" in output


def _readable_rows(table):
    return {row["uri"]: row["run_id"] for row in rows_of(table)}


def _wrote(file, data):
    try:
        file.write(data)
    except OSError:
        return False
    return True


@contextmanager
def _small_disk(folder):
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)]
    if os.getuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip(
            "a small disk of its own needs the right to mount one: run as root, outside an unprivileged container"
        )
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def _like_an_ordinary_user():
    """What to put before a command so that modes of files count for it: for root they do not."""
    if os.getuid():
        return ()
    if not shutil.which("setpriv"):
        pytest.skip("as root this needs setpriv: apt-get install util-linux")
    return ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
