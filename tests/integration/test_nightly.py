"""A night that nobody watches: whatever ends it, a webhook hears of it, its receipt says so, and one run goes on."""

import datetime as dt
import json
import os
import signal
import time
from contextlib import contextmanager

import pyarrow as pa
import pytest
import yaml

from labelmill.label.todo.settings import Settings
from labelmill.model.registry import Registry
from labelmill.spec import load_spec
from labelmill.storage import open_store
from labelmill.storage.lease import hold_lease
from labelmill.storage.lease.holder import Holder
from labelmill.table.data_file import put_data_file
from labelmill.table.nights import exposition, nights
from labelmill.table.row import DATA_SCHEMA
from labelmill.table.writer import TableWriter
from promise import assert_the_promise
from running import data_files, free_port, label_spec, labelmill, start_labelmill, wait_for
from webhook import webhook

NUM_PICTURES = 250


@pytest.fixture
def hook():
    with webhook(200) as hook:
        yield hook


@pytest.fixture
def job(tmp_path, registry, hook):
    """A nightly label job with pictures, and a table that holds a row for each of them: there is nothing to do."""
    (tmp_path / "inbox").mkdir()
    for number in range(NUM_PICTURES):
        (tmp_path / f"inbox/{number:04d}.jpg").write_bytes(b"never read")
    fields = {"registry": registry, "model": "tiny@1", "images": tmp_path / "inbox", "output": tmp_path / "labels"}
    more = {"notify": {"url": "${HOOK}"}, "schedule": {"cron": "0 2 * * *"}, "prices": {"core_hour": 0.05}}
    path = label_spec(tmp_path / "label.yaml", **fields, **more)
    fill(path, hook)
    return path


def fill(path, hook):
    spec = load_spec(path, environ={"HOOK": hook.url}).spec
    bundle, writer = Registry(spec.registry).resolve("tiny@1"), TableWriter(spec.output, ["tiny@1"])
    done = {
        "status": "ok",
        "model": "tiny@1",
        "bundle_digest": bundle.digest,
        "settings_digest": Settings.of(spec).digest,
        "run_id": writer.run_id,
        "labelled_at": dt.datetime.now(dt.UTC),
        "labels": [],
    }
    listed = [row | done for batch in open_store(spec.images).list() for row in batch.to_pylist()]
    day = dt.datetime.now(dt.UTC).date().isoformat()
    rows = pa.Table.from_pylist(listed, schema=DATA_SCHEMA)
    writer.commit([put_data_file(open_store(spec.output), f"labelled_on={day}/{writer.run_id}.parquet", rows, day)])


def run(job, hook, *arguments, **environ):
    return labelmill("run", job, *arguments, HOOK=hook.url, **environ)


def aside(tmp_path):
    return open_store(f"{tmp_path}/labels/_labelmill")


def last_night(tmp_path):
    return nights(f"{tmp_path}/labels")[-1]


def told(hook):
    """The one message, without what differs from run to run."""
    [message] = hook.got
    return message


def assert_told(hook, **expected):
    message = told(hook)
    assert {name: message.get(name) for name in expected} == expected
    assert message["kind"] == "label"
    assert message["job"] == "test"
    assert f"labelmill label test: {message['outcome']} (exit code {message['exit_code']})" in message["text"]


def test_a_night_with_nothing_to_do_is_told_with_its_summary(tmp_path, job, hook):
    done = run(job, hook)
    assert done.returncode == 0, done.stderr
    table = f"{tmp_path}/labels"
    assert_told(hook, outcome="nothing to do", exit_code=0, pictures_listed=NUM_PICTURES, table=table, model="tiny@1")
    message = told(hook)
    assert message["run_id"] == last_night(tmp_path).run_id
    assert (message["cost"], message["currency"]) == (0, "USD")  # it held no core
    assert message["duration_s"] > 0
    assert "nothing to do" in message["text"].splitlines()[1]
    assert hook.url not in (tmp_path / f"labels/_labelmill/receipts/{message['run_id']}.json").read_text()


def test_who_wants_failures_alone_hears_of_no_good_night(tmp_path, job, hook):
    assert run(job, hook, "--set", "notify.when=failure").returncode == 0
    assert hook.got == []
    assert run(job, hook, "--set", "notify.when=failure", "--set", "model=none@1").returncode == 1
    assert_told(hook, outcome="stopped", exit_code=1)


def test_a_wrong_bundle_is_told_and_is_no_gap(tmp_path, job, hook):
    done = run(job, hook, "--set", "model=tiny@7")
    assert done.returncode == 1
    [error] = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert_told(hook, outcome="stopped", exit_code=1, error=error.removeprefix("error: "))
    night = last_night(tmp_path)
    assert (night.outcome, night.exit_code, night.error, night.model) == ("stopped", 1, told(hook)["error"], "tiny@7")


def test_where_there_is_no_table_a_failed_run_leaves_nothing(tmp_path, job, hook):
    assert run(job, hook, "--set", "model=tiny@7", "--set", f"output={tmp_path}/wrong").returncode == 1
    assert told(hook)["table"] == f"{tmp_path}/wrong"
    assert not (tmp_path / "wrong").exists()


def test_a_skipped_night_is_told_as_skipped(tmp_path, job, hook):
    with hold_lease(aside(tmp_path), "other"):
        done = run(job, hook)
    assert done.returncode == 5
    assert_told(hook, outcome="skipped", exit_code=5)
    assert "being written by job 'other'" in told(hook)["error"]
    assert (last_night(tmp_path).outcome, last_night(tmp_path).exit_code) == ("skipped", 5)


def test_a_share_that_vanished_is_told_and_on_record_and_the_table_is_as_it_was(tmp_path, job, hook):
    for number in range(75):
        (tmp_path / f"inbox/{number:04d}.jpg").unlink()
    files = data_files(tmp_path / "labels")
    assert run(job, hook).returncode == 4
    assert_told(hook, outcome="stopped", exit_code=4, pictures_vanished=75, pictures_held=NUM_PICTURES)
    assert "75 of the 250 pictures" in told(hook)["error"]
    night = last_night(tmp_path)
    assert (night.outcome, night.exit_code, night.vanished, night.held) == ("stopped", 4, 75, NUM_PICTURES)
    assert "labelmill_nights_vanished_rate" in exposition("t", nights(f"{tmp_path}/labels"))
    assert '_vanished_rate{table="t",name="test"} 0.3\n' in exposition("t", nights(f"{tmp_path}/labels"))
    assert data_files(tmp_path / "labels") == files
    assert run(job, hook, "--set", "max_vanished_rate=1").returncode == 0
    assert (last_night(tmp_path).exit_code, last_night(tmp_path).vanished) == (0, 75)


def test_a_failure_rate_that_is_found_with_nothing_left_to_do_is_told(tmp_path, job, hook):
    spec = load_spec(job, environ={"HOOK": hook.url}).spec
    digest = Registry(spec.registry).resolve("tiny@1").digest
    stopped = {"run_id": "000000001-x", "job": "test", "bundle_digest": digest, "outcome": "stopped"}
    stopped |= {"statuses": {"ok": 100, "unreadable": 100}, "started_at": "2026-01-01T00:00:00+00:00"}
    aside(tmp_path).write("receipts/000000001-x.json", json.dumps(stopped).encode())
    for _ in range(2):  # and so it stays, until a run labels something
        assert run(job, hook).returncode == 3
        assert_told(hook, outcome="stopped", exit_code=3)
        assert "max_failure_rate" in told(hook)["error"]
        assert (last_night(tmp_path).outcome, last_night(tmp_path).exit_code) == ("nothing to do", 3)
        hook.got.clear()


def test_a_cluster_that_is_not_there_is_told(tmp_path, job, hook):
    (tmp_path / "inbox/new.jpg").write_bytes(b"to be read")
    assert run(job, hook, RAY_ADDRESS=f"127.0.0.1:{free_port()}").returncode == 6
    assert_told(hook, outcome="stopped", exit_code=6, pictures_listed=NUM_PICTURES + 1)
    assert last_night(tmp_path).exit_code == 6


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_told_within_seconds(tmp_path, job, hook, number):
    """While it waits whether a holder elsewhere still lives."""
    aside(tmp_path).write("lease/000001.json", Holder("elsewhere", "another", 1, None, "test").to_json())
    before = ("env", "--default-signal=HUP,INT")
    process = start_labelmill("run", job, log=tmp_path / "log", before=before, HOOK=hook.url)
    assert wait_for(lambda: (tmp_path / "log").exists() and "waiting up to" in (tmp_path / "log").read_text(), process)
    sent = time.monotonic()
    process.send_signal(number)
    assert process.wait(20) == 128 + number
    assert time.monotonic() - sent < 8
    assert_told(hook, outcome="stopped", exit_code=128 + number, error=f"stopped by {number.name}")
    assert last_night(tmp_path).exit_code == 128 + number


@pytest.mark.parametrize("answer", [404, pytest.param(500, marks=pytest.mark.long)])
def test_a_webhook_that_fails_changes_no_end(tmp_path, job, answer):
    with webhook(answer) as broken:
        began = time.monotonic()
        done = run(job, broken)
        assert time.monotonic() - began < 60
    assert done.returncode == 0
    assert "nothing to do" in done.stdout
    [line] = [line for line in done.stderr.splitlines() if "the webhook of notify" in line]
    assert f"the webhook of notify was not told: it answered {answer}" in line
    assert "SECRET" not in done.stderr + done.stdout
    assert len(broken.got) == 1 if answer == 404 else len(broken.got) > 1
    assert last_night(tmp_path).exit_code == 0


def test_words_from_outside_call_nobody(tmp_path, job, hook):
    assert run(job, hook, "--set", "images=/nowhere/<!channel>&").returncode == 1
    assert "&lt;!channel&gt;&amp;" in told(hook)["text"]
    assert "<!channel>" not in told(hook)["text"]
    assert "<!channel>" in told(hook)["error"]


def test_a_changed_schedule_labels_nothing_anew(tmp_path, job, hook):
    done = run(job, hook, "--set", "schedule.cron=0 3 * * *", "--set", "schedule.overlap=replace")
    assert "nothing to do" in done.stdout
    text = yaml.safe_load(job.read_text())
    for block in ("schedule", "notify"):
        del text[block]
    job.write_text(yaml.safe_dump(text))
    assert "nothing to do" in run(job, hook).stdout


@contextmanager
def started(*command, log, **environ):
    process = start_labelmill(*command, log=log, **environ)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def committed(table):
    """The first two commits make the empty table, and take the number of the run."""
    return len(list(table.glob("_delta_log/*.json"))) > 2


@pytest.mark.long
def test_a_night_that_is_killed_goes_on_in_the_next_and_its_end_is_told(tmp_path, registry, slow_store, hook):
    """Two schedulers at once make one run; it is killed in the middle; the next is replaced by one after it, which ends
    what they began."""
    table, log, store = tmp_path / "labels", tmp_path / "log", tmp_path / "store"
    store.mkdir()
    for number in range(1200):  # so many that none of the first three can end them before it is stopped
        os.link(slow_store / "0000.png", store / f"{number:04d}.png")
    job = label_spec(
        tmp_path / "label.yaml",
        registry=registry,
        model="tiny@1",
        images=store,
        output=table,
        notify={"url": "${HOOK}"},
        schedule={"cron": "0 2 * * *"},
    )
    with (
        started("run", job, log=log, HOOK=hook.url) as one,
        started("run", job, log=tmp_path / "other", HOOK=hook.url) as other,
    ):
        until = time.monotonic() + 60
        while one.poll() is None and other.poll() is None and time.monotonic() < until:
            time.sleep(0.05)
        busy, working = (one, other) if one.poll() is not None else (other, one)
        assert busy.wait() == 5
        assert [(message["outcome"], message["exit_code"]) for message in hook.got] == [("skipped", 5)]
        assert wait_for(lambda: committed(table), working), log.read_text()
        working.kill()
        working.wait()
    assert [night.outcome for night in nights(str(table)) if night.outcome != "skipped"] == ["killed"]
    hook.got.clear()
    replace = ("--set", "schedule.overlap=replace")
    with started("run", job, *replace, log=tmp_path / "second", HOOK=hook.url) as second:
        assert wait_for(lambda: hook.got, second), (tmp_path / "second").read_text()
        [vanished] = hook.got
        assert (vanished["outcome"], vanished["exit_code"], vanished["job"]) == ("killed", 137, "test")
        assert f"process {working.pid}" in vanished["error"]
        assert vanished["table"] == str(table)
        assert vanished["started_at"]
        assert vanished["last_seen_at"]
        hook.got.clear()
        commits = len(list(table.glob("_delta_log/*.json")))
        assert wait_for(lambda: len(list(table.glob("_delta_log/*.json"))) > commits + 1, second)
        third = labelmill("run", job, *replace, HOOK=hook.url)
        assert second.wait(60) == 5
    said = (tmp_path / "second").read_text().splitlines()[-1]
    assert said.startswith("error: a newer run took the place of this one (overlap: replace): job 'test'")
    assert third.returncode == 0, third.stderr
    assert [(message["outcome"], message["exit_code"]) for message in hook.got] == [("stopped", 5), ("complete", 0)]
    assert_the_promise(str(table), [str(path) for path in store.iterdir()])
    ended = [(night.outcome, night.exit_code) for night in nights(str(table)) if night.outcome != "skipped"]
    assert ended == [("killed", 137), ("stopped", 5), ("complete", 0)]
    assert nights(str(table))[-2].labelled > 0
    hook.got.clear()
    assert run(job, hook).returncode == 0
    assert [message["outcome"] for message in hook.got] == ["nothing to do"]  # and nothing twice
