"""The table's promise: all or nothing, one writer, and a committed file stays as it is."""

import datetime as dt
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable, write_deltalake

from labelmill.errors import FencedError, StorageError, TableError
from labelmill.storage import open_store
from labelmill.table.data_file import DataFile, put_data_file
from labelmill.table.row import DATA_SCHEMA, FINAL, RETRIED, SCHEMA, STATUSES
from labelmill.table.table import LabelTable
from labelmill.table.writer import TableWriter

DAY = dt.date(2026, 3, 1)


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "labels")


def rows(names: list[str], *, run_id: str = "000000001-x", status: str = "ok", model: str = "digits@1") -> pa.Table:
    now = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)
    row = {"etag": "e", "size_bytes": 1, "modified_at": now, "status": status, "model": model, "run_id": run_id}
    row |= {
        "bundle_digest": "d",
        "settings_digest": "s",
        "labelled_at": now,
        "labels": [{"label": "a", "confidence": 0.5}],
    }
    return pa.Table.from_pylist([row | {"uri": name} for name in names], schema=DATA_SCHEMA)


def put(uri: str, name: str, table: pa.Table) -> DataFile:
    return put_data_file(open_store(uri), f"labelled_on={DAY}/{name}.parquet", table, DAY.isoformat())


def uris(uri: str) -> list[str]:
    return [row["uri"] for row in LabelTable(uri).query("SELECT uri FROM labels ORDER BY uri", ["uri"])]


def test_the_closed_list_of_statuses_has_no_word_twice() -> None:
    assert len(STATUSES) == len(set(STATUSES)) == len(FINAL) + len(RETRIED) == 12


def test_committed_rows_are_read_back_as_they_were(uri: str) -> None:
    writer = TableWriter(uri)
    writer.commit([put(uri, "a", rows(["x", "y"]))])
    back = DeltaTable(uri).to_pyarrow_table()
    assert back.schema.names == SCHEMA.names
    assert [back.schema.field(n).type for n in SCHEMA.names] == SCHEMA.types
    assert back.drop_columns(["labelled_on"]).cast(DATA_SCHEMA).equals(rows(["x", "y"]))
    assert back["labelled_on"].to_pylist() == [DAY, DAY]


def test_a_file_that_nobody_committed_is_invisible(uri: str) -> None:
    writer = TableWriter(uri)
    put(uri, "orphan", rows(["lost"]))
    writer.commit([put(uri, "a", rows(["x"]))])
    assert uris(uri) == ["x"]


def test_a_second_attempt_returns_the_file_of_the_first(uri: str) -> None:
    first = put(uri, "a", rows(["x", "y"]))
    again = put(uri, "a", rows(["other"]))
    assert again == first
    TableWriter(uri).commit([again])
    assert uris(uri) == ["x", "y"]


def test_a_replaced_writer_commits_nothing_more(uri: str) -> None:
    old = TableWriter(uri)
    old.commit([put(uri, "a", rows(["x"]))])
    new = TableWriter(uri)
    with pytest.raises(FencedError, match="took over the label table"):
        old.commit([put(uri, "late", rows(["late"]))])
    with pytest.raises(FencedError):  # and stays out, whatever it saw of the failure
        old.commit([put(uri, "later", rows(["later"]))])
    new.commit([put(uri, "b", rows(["y"]))])
    assert uris(uri) == ["x", "y"]


def test_a_replaced_writer_compacts_nothing_more(uri: str) -> None:
    old = TableWriter(uri)
    old.commit([put(uri, f"f{i}", rows([f"x{i}"])) for i in range(20)])
    TableWriter(uri)
    with pytest.raises(FencedError):
        old.compact(DAY)


def test_a_commit_whose_answer_was_lost_is_found_again(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = TableWriter(uri)
    commit = writer._delta.create_write_transaction

    def lost(*args: object, **kwargs: object) -> None:
        commit(*args, **kwargs)
        raise OSError("connection reset before the answer came")

    monkeypatch.setattr(writer, "_delta", Through(writer._delta, lost))
    writer.commit([put(uri, "a", rows(["x"]))])
    writer._delta = writer._delta.real
    writer.commit([put(uri, "b", rows(["y"]))])
    assert uris(uri) == ["x", "y"]


class Through:
    """A Delta table whose commit behaves as given."""

    def __init__(self, real: DeltaTable, commit: object) -> None:
        self.real, self.create_write_transaction = real, commit

    def __getattr__(self, name: str) -> object:
        return getattr(self.real, name)


def test_run_ids_sort_in_the_order_of_the_runs(uri: str) -> None:
    ids = [TableWriter(uri).run_id for _ in range(12)]
    assert ids == sorted(ids)
    assert len(set(ids)) == 12


def test_merging_small_files_keeps_every_row(uri: str) -> None:
    writer = TableWriter(uri)
    names = [f"x{i:02d}" for i in range(40)]
    for start in range(0, 40, 10):
        writer.commit([put(uri, name, rows([name])) for name in names[start : start + 10]])
    assert writer.compact(DAY) == 39
    assert uris(uri) == names
    back = DeltaTable(uri).to_pyarrow_table()
    assert [back.schema.field(n).type for n in SCHEMA.names] == SCHEMA.types
    writer.commit([put(uri, "after", rows(["z"]))])
    assert uris(uri) == [*names, "z"]


def test_the_current_view_goes_by_commits_not_by_clocks(uri: str) -> None:
    first, second = TableWriter(uri), None
    first.commit([put(uri, "a", rows(["x", "y"], run_id=first.run_id, status="fetch_failed"))])
    second = TableWriter(uri)
    second.commit([put(uri, "b", rows(["x"], run_id=second.run_id, model="digits@2"))])
    other = TableWriter(uri)
    other.commit([put(uri, "c", rows(["x"], run_id=other.run_id, model="cats@1"))])
    view = LabelTable(uri).query("SELECT * FROM current_labels")
    assert sorted((row["uri"], row["model"], row["status"]) for row in view) == [
        ("x", "cats@1", "ok"),
        ("x", "digits@2", "ok"),
        ("y", "digits@1", "fetch_failed"),
    ]


def test_statistics_let_a_reader_skip_files(uri: str) -> None:
    writer = TableWriter(uri)
    writer.commit([put(uri, "a", rows(["a", "c"])), put(uri, "b", rows(["x", "z"]))])
    actions = pa.table(DeltaTable(uri).get_add_actions(flatten=True))
    assert sorted(zip(actions["min.uri"].to_pylist(), actions["max.uri"].to_pylist(), strict=True)) == [
        ("a", "c"),
        ("x", "z"),
    ]
    assert actions["num_records"].to_pylist() == [2, 2]
    table = LabelTable(uri)
    assert [row for batch in table.batches(["uri"], uri="y") for row in batch["uri"].to_pylist()] == ["x", "z"]


def test_no_table_and_a_foreign_table_are_told_apart(tmp_path: Path, uri: str) -> None:
    with pytest.raises(TableError, match="no label table at"):
        LabelTable(uri)
    foreign = str(tmp_path / "foreign")
    write_deltalake(foreign, pa.table({"price": [1]}))
    with pytest.raises(TableError, match="not a label table: it lacks uri"):
        LabelTable(foreign)
    with pytest.raises(TableError, match="not a label table"):
        TableWriter(foreign)


_OTHER_READERS = """
import os, sys
from deltalake import DeltaTable
from labelmill.storage import delta_options, open_store
from labelmill.table.data_file import put_data_file
from labelmill.table.row import DATA_SCHEMA
from labelmill.table.table import LabelTable
from labelmill.table.writer import TableWriter

for name in sys.argv[2:]:
    uri = open_store(sys.argv[1]).address(f"{name}/labels")
    file = put_data_file(open_store(uri), "labelled_on=2026-03-01/a", DATA_SCHEMA.empty_table(), "2026-03-01")
    TableWriter(uri).commit([file])
    assert LabelTable(uri).num_files == 1
    DeltaTable(uri, storage_options=delta_options(uri)).to_pyarrow_table()
os._exit(0)  # the reader's threads may abort an interpreter that ends
"""


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_log_and_files_lie_together_where_the_address_says(
    request: pytest.FixtureRequest, tmp_path: Path, place: str
) -> None:
    """deltalake takes an address for a URL. Every address that we let through must mean the same to it, to obstore and
    to boto3; every other is refused by name, before anything is written."""
    root = open_store(str(tmp_path) if place == "folder" else f"{request.getfixturevalue('s3')}/in")
    names = ["a b", "100%", "%zz", "plus+", "ünï", "x[1]", "{y}^`|<>", "'q\"", "a:b", "a&b=c;$", "..lead", " x "]
    names += ["run#7", "what?"] if place == "folder" else ["back\\slash"]
    # a process of its own: while deltalake waits for an answer it holds the interpreter, in which moto would give it
    subprocess.run([sys.executable, "-c", _OTHER_READERS, root.uri, *names], check=True, timeout=120)
    for name in names:
        assert open_store(root.address(f"{name}/labels")).folders() == ["_delta_log", "labelled_on=2026-03-01"]
    assert root.folders() == sorted(names)
    for name in ["a%20b", "100%25", "%FF", "tab\tx", *(["run#7", "a//b", "x/../y"] if place == "s3" else ["a\\b"])]:
        uri = f"{root.uri}/{name}"
        for attempt in (TableWriter, LabelTable):
            with pytest.raises(StorageError, match=r"expected for a label table an address .* without"):
                attempt(uri)
    assert root.folders() == sorted(names)


def test_data_files_are_plain_parquet(uri: str) -> None:
    file = put(uri, "a", rows(["x"]))
    path = Path(uri) / file.path
    assert path.stat().st_size == file.size_bytes
    assert pq.read_table(path, schema=DATA_SCHEMA).num_rows == 1
