"""Two runs on one table: one of them works, and the other is told."""

import json
import signal
import time
from contextlib import contextmanager

import pytest
from PIL import Image

from bundles import make_bundle
from labelmill.storage import open_store
from pictures import encoded
from promise import assert_the_promise
from running import label_spec, labelmill, rows_of, start_labelmill, wait_for


@pytest.fixture(params=["folder", pytest.param("s3", marks=pytest.mark.long)])
def place(request, tmp_path, registry, slow_store):
    """(table, job, uris): over a folder, or with table, model and pictures in a bucket."""
    if request.param == "folder":
        table, images, models = str(tmp_path / "labels"), str(slow_store), registry
        uris = [str(path) for path in slow_store.iterdir()]
    else:
        s3 = request.getfixturevalue("s3")
        table, images, models = f"{s3}/labels", f"{s3}/inbox", f"{s3}/models"
        make_bundle(models)
        store, picture = open_store(images), large_picture()
        uris = [store.address(f"{index:04d}.png") for index in range(256)]
        for uri in uris:
            store.write(uri.removeprefix(f"{images}/"), picture)
    job = label_spec(tmp_path / "label.yaml", registry=models, model="tiny@1", images=images, output=table)
    return table, job, uris


def large_picture():
    """Few bytes, for a server that holds them all in memory, and many pixels."""
    return encoded(Image.linear_gradient("L").resize((2400, 2400)).convert("RGB"), "PNG")


@contextmanager
def started(job, log):
    """A run that is on its way; killed in the end if it still lives."""
    run = start_labelmill("run", job, log=log)
    try:
        yield run
    finally:
        if run.poll() is None:
            run.send_signal(signal.SIGCONT)
            run.kill()
        run.wait()


def lease_keys(table, ending):
    return sorted(key for key in open_store(f"{table}/_labelmill").keys("lease") if key.endswith(ending))


def num_commits(table):
    """From the log's names: deltalake holds the interpreter while it asks, and with it the S3 server of these tests."""
    return sum(key.endswith(".json") for key in open_store(table).keys("_delta_log"))


def has_commits(table):
    """The first two make the empty table, and take the number of this run."""
    return num_commits(table) > 2


def wait_until(condition, run, log):
    """As `wait_for`, for a condition that asks a server."""

    def slowly():
        time.sleep(0.2)
        return condition()

    assert wait_for(slowly, run), log.read_text()


def make_holder_look_foreign(table):
    """As if it ran on another machine, where nobody here can see whether its process lives."""
    store = open_store(f"{table}/_labelmill")
    (key,) = lease_keys(table, ".json")
    claim = json.loads(store.read(key))
    store.write(key, json.dumps(claim | {"host": "elsewhere", "machine": "another"}).encode())


def test_a_second_run_is_refused_and_told_of_the_first(tmp_path, place):
    table, job, _ = place
    with started(job, tmp_path / "log") as first:
        wait_until(lambda: lease_keys(table, ".beat"), first, tmp_path / "log")
        second = labelmill("run", job)
        assert second.returncode == 5
        assert f"process {first.pid}" in second.stderr
        assert "job 'test'" in second.stderr
        assert "Traceback" not in second.stderr


@pytest.mark.long
def test_a_living_run_on_another_machine_is_left_alone(tmp_path, place):
    table, job, _ = place
    with started(job, tmp_path / "log") as first:
        wait_until(lambda: lease_keys(table, ".beat"), first, tmp_path / "log")
        make_holder_look_foreign(table)
        second = labelmill("run", job)
        assert second.returncode == 5
        assert f"process {first.pid} on elsewhere" in second.stderr
        assert "waiting up to 15 s" in second.stderr


@pytest.mark.long
@pytest.mark.parametrize("elsewhere", [False, True])
def test_a_run_whose_driver_is_gone_is_taken_over(tmp_path, place, elsewhere):
    table, job, uris = place
    with started(job, tmp_path / "log") as first:
        wait_until(lambda: has_commits(table), first, tmp_path / "log")
        first.kill()
        first.wait()
    if elsewhere:
        make_holder_look_foreign(table)
    second = labelmill("run", job, timeout_s=600)
    assert second.returncode == 0, second.stderr
    assert ("gave no sign of life for 15 s" if elsewhere else "which is gone") in second.stderr
    assert_the_promise(table, uris)


@pytest.mark.long
def test_a_driver_that_wakes_up_after_it_was_taken_over_commits_nothing_more(tmp_path, place):
    table, job, uris = place
    log = tmp_path / "log"
    with started(job, log) as sleeper:
        wait_until(lambda: has_commits(table), sleeper, log)
        sleeper.send_signal(signal.SIGSTOP)
        refused = labelmill("run", job)
        assert refused.returncode == 5  # on this machine we see that it lives
        assert f"process {sleeper.pid}" in refused.stderr
        make_holder_look_foreign(table)
        time.sleep(15)  # in which its workers finish files that it will not commit
        second = labelmill("run", job, timeout_s=600)
        assert second.returncode == 0, second.stderr
        commits = num_commits(table)
        sleeper.send_signal(signal.SIGCONT)
        assert sleeper.wait(600) == 1
    text = log.read_text()
    assert "error: another run took over" in text
    assert "Traceback" not in text
    rows = assert_the_promise(table, uris)
    assert len({row["run_id"] for row in rows}) == 2
    assert num_commits(table) == commits
    assert labelmill("run", job).returncode == 0
    assert len(rows_of(table)) == len(rows)
