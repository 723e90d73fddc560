"""What became of each run, from receipts of this version and of others, and from a lease that tells who still lives."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import boto3
import pytest

from labelmill.errors import ArchivedError
from labelmill.storage import open_store
from labelmill.storage.lease import hold_lease
from labelmill.table.nights import nights
from labelmill.table.receipts import close_killed, past_receipts
from table.nights.made import receipt


@pytest.fixture(params=["folder", "s3"])
def table(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "labels") if request.param == "folder" else request.getfixturevalue("s3") + "/labels"


def outcomes(table: str) -> list[tuple[str, int | None]]:
    return [(night.outcome, night.exit_code) for night in nights(table)]


def test_runs_come_in_the_order_in_which_they_began(table: str) -> None:
    receipt(table, 30, "2026-11-03T01:00:00", outcome="nothing to do")
    receipt(table, 10, "2026-11-01T01:00:00", cost={"total": 1.5, "currency": "EUR"})
    receipt(table, 0, "2026-11-02T01:00:00", outcome="skipped", exit_code=5, error="busy")  # held no table
    first, second, third = nights(table)
    assert [night.outcome for night in (first, second, third)] == ["complete", "skipped", "nothing to do"]
    assert (first.cost, first.currency, first.failed, first.statuses["missing"]) == (1.5, "EUR", 4, 1)
    assert (second.exit_code, second.error) == (5, "busy")
    assert first.schedule
    assert first.schedule.time_zone == "Europe/Berlin"
    assert (first.ended_at - first.started_at).total_seconds() == 600


def test_a_table_on_which_nothing_ever_ran_has_no_nights(table: str) -> None:
    assert nights(table) == []


def test_receipts_of_the_version_before_are_read(table: str) -> None:
    new = ("exit_code", "error", "pictures_held", "pictures_vanished")
    for number, outcome in enumerate(["complete", "nothing to do", "stopped"], 1):
        found = receipt(table, number, f"2026-11-0{number}T01:00:00", outcome=outcome, pictures_deleted=7)
        left = {name: value for name, value in found.items() if name not in new}
        open_store(f"{table}/_labelmill").write(f"receipts/{found['run_id']}.json", json.dumps(left).encode())
    assert outcomes(table) == [("complete", 0), ("nothing to do", 0), ("stopped", None)]
    assert [(night.vanished, night.held) for night in nights(table)] == [(7, 0)] * 3


def test_what_is_no_receipt_hides_no_other(table: str) -> None:
    found = receipt(table, 1, "2026-11-01T01:00:00")
    store = open_store(f"{table}/_labelmill")
    odd: list[Any] = [
        "{",
        [],
        {"run_id": "x5"},
        found | {"run_id": "x6", "started_at": "yesterday"},
        found | {"run_id": "x7", "statuses": [1]},
        found | {"run_id": "x8", "exit_code": "none"},
        found,
    ]
    for number, one in enumerate(odd, 3):
        store.write(f"receipts/x{number}.json", (one if isinstance(one, str) else json.dumps(one)).encode())
    store.write("receipts/.DS_Store", b"")
    assert outcomes(table) == [("complete", 0)]


def test_a_schedule_that_is_none_any_more_hides_no_run(table: str) -> None:
    receipt(table, 1, "2026-11-01T01:00:00", schedule={"every": "night"})
    assert [night.schedule for night in nights(table)] == [None]


HOLDER = (
    "import sys, time\n"
    "from labelmill.storage import open_store\n"
    "from labelmill.storage.lease import hold_lease\n"
    "with hold_lease(open_store(sys.argv[1] + '/_labelmill'), 'nightly'):\n"
    "    print('held', flush=True); time.sleep(600)\n"
)


def test_a_run_that_was_just_killed_does_not_pass_for_one_at_work(table: str) -> None:
    receipt(table, 1, "2026-11-01T01:00:00", outcome="running", exit_code=None)
    with subprocess.Popen([sys.executable, "-c", HOLDER, table], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()
        assert outcomes(table) == [("running", None)]
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert outcomes(table) == [("killed", 137)]


def test_a_run_elsewhere_is_at_work_until_it_is_silent_for_long(tmp_path: Path) -> None:
    table = tmp_path / "labels"
    receipt(table, 1, "2026-11-01T01:00:00", outcome="running", exit_code=None)
    with hold_lease(open_store(f"{table}/_labelmill"), "nightly"):
        claim = table / "_labelmill/lease/000001.json"
        claim.write_text(json.dumps(json.loads(claim.read_text()) | {"machine": "another"}))
        assert outcomes(str(table)) == [("running", None)]
        hour_ago = time.time() - 3600
        os.utime(table / "_labelmill/lease/000001.beat", (hour_ago, hour_ago))
        [night] = nights(str(table))
    assert night.outcome == "killed"
    assert "no sign of life since" in night.error


def test_the_next_run_says_for_ever_which_ones_were_killed(table: str) -> None:
    receipt(table, 1, "2026-11-01T01:00:00", outcome="running")  # of a version in which this was never settled
    receipt(table, 5, "2026-11-02T01:00:00")
    receipt(table, 7, "2026-11-03T01:00:00", outcome="running", exit_code=None)
    receipt(table, 9, "2026-11-04T01:00:00", outcome="running", exit_code=None, pictures_labelled=50)
    receipt(table, 0, "2026-11-05T01:00:00", outcome="skipped", exit_code=5)
    close_killed(open_store(f"{table}/_labelmill"))
    kept = [(found["outcome"], found["exit_code"]) for found in past_receipts(table)]
    assert kept == [("killed", 137), ("killed", 137), ("complete", 0), ("running", 0), ("skipped", 5)]
    assert [night.labelled for night in nights(table)][-2] == 50


def test_a_receipt_that_cannot_be_read_is_an_error_and_no_shorter_list(s3: str) -> None:
    """As where somebody's rule moves what is old into an archive."""
    found = receipt(s3, 1, "2026-11-01T01:00:05")
    key = f"_labelmill/receipts/{found['run_id']}.json"
    bucket = s3.removeprefix("s3://")
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=json.dumps(found), StorageClass="GLACIER")
    with pytest.raises(ArchivedError, match="archive"):
        nights(s3)
