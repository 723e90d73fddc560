"""Upkeep of a label table: merge its small files, remove those that it needs no more, forget those that are gone.

All hold the table's lease, so no run is at work meanwhile and none is started.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from labelmill.storage import Store, open_store
from labelmill.storage.lease import hold_lease
from labelmill.table.snapshot import LiveFile, Snapshot
from labelmill.table.table import LabelTable
from labelmill.table.writer import TableWriter

__all__ = ["Compaction", "Unneeded", "compact", "find_lost", "find_unneeded", "repair", "vacuum"]


@dataclass(frozen=True)
class Compaction:
    """What became of a table's files; those merged away stay on disk until a vacuum."""

    files_before: int
    files_after: int


@dataclass(frozen=True)
class Unneeded:
    """A file below the table's folder that no version younger than the retention needs."""

    key: str
    size_bytes: int


def compact(uri: str) -> Compaction:
    """Merge the small files of every day, into files of up to 256 MiB. BusyError: a run is on the table.

    A day whose files are all large already, or who has only one, stays as it is; rows stay as they are.
    """
    before = LabelTable(uri)
    with hold_lease(_aside(before), "labels compact") as lease:
        writer = TableWriter(uri)
        for day in before.days():
            lease.check()
            writer.compact(day, from_files=2)
    return Compaction(before.num_files, LabelTable(uri).num_files)


def find_unneeded(uri: str, *, older_than_h: float) -> list[Unneeded]:
    """The data files that a vacuum would remove, by key.

    These were merged into others more than `older_than_h` hours ago, or were written by a run that died before it
    committed them, that long ago. What the table consists of, what a reader of a younger version may still read, and
    all below `_labelmill` and `_delta_log`, is never among them.
    """
    table, before = LabelTable(uri), datetime.now(UTC) - timedelta(hours=older_than_h)
    unreferenced = table.unreferenced(older_than_h)
    store = open_store(uri)
    found = []
    for batch in store.list() if unreferenced else ():
        for row in batch.to_pylist():
            key = row["uri"][len(store.address("")) :]
            # Of a deletion vector, a `.bin`, deltalake does not know that the table needs it.
            if key in unreferenced and key.endswith(".parquet") and row["modified_at"] <= before:
                found.append(Unneeded(key, row["size_bytes"]))
    return sorted(found, key=lambda file: file.key)


def vacuum(uri: str, *, older_than_h: float) -> list[Unneeded]:
    """Delete what `find_unneeded` finds. BusyError: a run is on the table, and its files have no reference yet."""
    table = LabelTable(uri)
    with hold_lease(_aside(table), "labels vacuum") as lease:
        store, unneeded = open_store(uri), find_unneeded(uri, older_than_h=older_than_h)
        for file in unneeded:
            lease.check()
            store.delete(file.key)
    return unneeded


def find_lost(uri: str) -> list[LiveFile]:
    """The files that the table consists of and that are gone from its folder, or are not as they were committed."""
    table = Snapshot(uri)
    return sorted(table.lost(table.files), key=lambda file: file.path)


def repair(uri: str) -> list[LiveFile]:
    """Take what is gone out of the table, which can then be read without the rows that lay there: the next run labels
    their pictures. BusyError: a run is on the table. TableError: what is lost is there, but damaged."""
    lost = find_lost(uri)
    with hold_lease(_aside(LabelTable(uri)), "labels repair"):
        TableWriter(uri).forget_gone()
    after = Snapshot(uri)
    after.check_there(after.files)
    return lost


def _aside(table: LabelTable) -> Store:
    return open_store(open_store(table.uri).address("_labelmill"))
