"""A table that many short runs have written stays in order, and loses nothing by it."""

import datetime as dt
import os
import threading
import time
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable

from labelmill.errors import BusyError, TableError
from labelmill.storage import open_store
from labelmill.storage.lease import hold_lease
from labelmill.table.data_file import put_data_file
from labelmill.table.row import DATA_SCHEMA
from labelmill.table.table import LabelTable
from labelmill.table.upkeep import compact, find_unneeded, vacuum
from labelmill.table.writer import TableWriter

NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
WEEK_H = 168


@pytest.fixture
def uri(tmp_path: Path) -> str:
    """Three days of four files each, one row a file, and a file that its run never committed."""
    uri = str(tmp_path / "labels")
    writer = TableWriter(uri)
    for day in ("2026-03-01", "2026-03-02", "2026-03-03"):
        writer.commit([put(uri, day, str(number)) for number in range(4)])
    put(uri, "2026-03-03", "orphan")
    return uri


def put(uri: str, day: str, name: str):
    row = {"uri": f"{day}/{name}", "etag": "e", "size_bytes": 1, "modified_at": NOW, "status": "ok", "model": "m@1"}
    row |= {"bundle_digest": "d", "settings_digest": "s", "run_id": "000000001-x", "labelled_at": NOW, "labels": []}
    table = pa.Table.from_pylist([row], schema=DATA_SCHEMA)
    return put_data_file(open_store(uri), f"labelled_on={day}/{name}.parquet", table, day)


def uris(uri: str) -> list[str]:
    return [row["uri"] for row in LabelTable(uri).query("SELECT uri FROM labels ORDER BY uri", ["uri"])]


def age(uri: str, hours: float) -> None:
    for path in Path(uri).rglob("*.parquet"):
        os.utime(path, (time.time() - hours * 3600,) * 2)


def test_compacting_merges_each_day_and_keeps_every_row(uri: str) -> None:
    before = uris(uri)
    done = compact(uri)
    assert (done.files_before, done.files_after) == (12, 3)
    assert uris(uri) == before
    assert len(before) == 12
    again = compact(uri)
    assert (again.files_before, again.files_after) == (3, 3)


def test_a_vacuum_removes_what_nobody_needs_and_nothing_else(uri: str) -> None:
    before = uris(uri)
    assert find_unneeded(uri, older_than_h=WEEK_H) == []
    age(uri, 200)
    assert [file.key for file in find_unneeded(uri, older_than_h=WEEK_H)] == ["labelled_on=2026-03-03/orphan.parquet"]
    compact(uri)
    age(uri, 200)
    # Merged away this minute: old as they are, a reader who opened the table before may still be at them.
    assert [file.key for file in vacuum(uri, older_than_h=WEEK_H)] == ["labelled_on=2026-03-03/orphan.parquet"]
    assert uris(uri) == before
    removed = vacuum(uri, older_than_h=0)
    assert len(removed) == 12
    assert all(file.size_bytes > 0 for file in removed)
    assert uris(uri) == before
    assert len(list(Path(uri).glob("labelled_on=*/*.parquet"))) == 3
    assert find_unneeded(uri, older_than_h=0) == []
    assert list(Path(uri, "_labelmill", "lease").iterdir())  # what runs keep beside the table is no business of it


def test_a_dry_run_deletes_nothing(uri: str) -> None:
    assert len(find_unneeded(uri, older_than_h=0)) == 1
    assert len(list(Path(uri).glob("labelled_on=*/*.parquet"))) == 13


def test_neither_touches_the_files_of_a_run_at_work(uri: str) -> None:
    aside = open_store(f"{uri}/_labelmill")
    with hold_lease(aside, "nightly"):
        for upkeep in (lambda: compact(uri), lambda: vacuum(uri, older_than_h=0)):
            with pytest.raises(BusyError, match="job 'nightly'"):
                upkeep()
    assert len(list(Path(uri).glob("labelled_on=*/*.parquet"))) == 13


def test_upkeep_of_no_table_makes_none(tmp_path: Path) -> None:
    for upkeep in (compact, lambda uri: vacuum(uri, older_than_h=0), lambda uri: find_unneeded(uri, older_than_h=0)):
        with pytest.raises(TableError, match="no label table at"):
            upkeep(str(tmp_path / "none"))
    assert not (tmp_path / "none").exists()


def test_the_heartbeat_goes_on_while_files_are_merged(uri: str) -> None:
    writer = TableWriter(uri)
    writer.commit([put(uri, "2026-03-04", str(number)) for number in range(60)])
    ticks, stop = [time.monotonic()], threading.Event()

    def tick() -> None:
        while not stop.wait(0.01):
            ticks.append(time.monotonic())

    thread = threading.Thread(target=tick)
    thread.start()
    started = time.monotonic()
    writer.compact(dt.date(2026, 3, 4))
    took, seen = time.monotonic() - started, [at for at in ticks if at > started]
    stop.set()
    thread.join()
    assert len(seen) > took / 0.01 / 10, f"{len(seen)} ticks in {took:.2f} s"


@pytest.mark.long
def test_a_table_of_two_thousand_commits_opens_quickly(tmp_path: Path) -> None:
    uri = str(tmp_path / "labels")
    writer = TableWriter(uri)
    for number in range(2000):
        writer.commit([put(uri, "2026-03-01", str(number))])
    checkpoints = list(Path(uri, "_delta_log").glob("*.checkpoint.parquet"))
    assert len(checkpoints) >= 19, "deltalake writes one every hundred commits by itself"
    started = time.process_time()
    assert LabelTable(uri).num_files == 2000
    assert time.process_time() - started < 2
    # Not for the folder's sake: the log before the checkpoint is not needed to open the table.
    for number in range(1800):
        Path(uri, "_delta_log", f"{number:020d}.json").unlink()
    assert DeltaTable(uri).transaction_version("labelmill") == 2001
    assert writer.compact(dt.date(2026, 3, 1)) == 1999
