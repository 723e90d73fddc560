"""What becomes of finished files that another program deletes."""

import datetime as dt
from pathlib import Path

import pyarrow as pa
import pytest

from labelmill.errors import TableError
from labelmill.label.commits import Commits
from labelmill.storage import open_store
from labelmill.storage.lease import hold_lease
from labelmill.table.data_file import DataFile, put_data_file
from labelmill.table.row import DATA_SCHEMA
from labelmill.table.table import LabelTable
from labelmill.table.writer import TableWriter

DAY = dt.date(2026, 3, 1)


def put(writer: TableWriter, name: str) -> DataFile:
    row = {"uri": name, "etag": "e", "status": "ok", "model": "m@1", "run_id": writer.run_id}
    table = pa.Table.from_pylist([row], schema=DATA_SCHEMA)
    path = f"labelled_on={DAY}/{writer.run_id}-{name}.parquet"
    return put_data_file(open_store(writer.uri), path, table, DAY.isoformat())


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "labels")


def names(uri: str) -> list[str]:
    return sorted(row["uri"] for row in LabelTable(uri).query("SELECT uri FROM labels", ["uri"]))


def test_a_file_that_was_deleted_before_its_commit_is_not_committed_and_ends_the_run(uri: str) -> None:
    """Another tool's vacuum takes what the table does not refer to yet."""
    writer = TableWriter(uri)
    with hold_lease(open_store(f"{uri}/_labelmill"), "nightly") as lease:
        commits = Commits(writer, lease, DAY)
        for name in ("kept", "lost", "cut off"):
            commits.add(put(writer, name))
        lost, cut_off = (next(Path(uri).rglob(f"*-{name}.parquet")) for name in ("lost", "cut off"))
        lost.unlink()
        cut_off.write_bytes(b"PAR1")
        with pytest.raises(TableError, match=r"^2 finished files of this run are gone .*VACUUM.*run the same command"):
            commits.now()
        assert names(uri) == ["kept"]
        commits.keep()  # on the way out
        assert (commits.number, commits.files, names(uri)) == (1, 1, ["kept"])


def test_a_run_whose_committed_files_were_deleted_is_not_complete(uri: str) -> None:
    """Who deleted them had looked before they were committed."""
    before, writer = TableWriter(uri), TableWriter(uri)
    with hold_lease(open_store(f"{uri}/_labelmill"), "nightly") as lease:
        commits = Commits(writer, lease, DAY)
        commits.add(put(writer, "kept"))
        commits.now()
        commits.check_kept()
        commits.add(put(writer, "lost"))
        commits.now()
        next(Path(uri).rglob("*-lost.parquet")).unlink()
        with pytest.raises(TableError, match=r"-lost.parquet is gone, .*labels repair"):
            commits.check_kept()
    before.check_kept()  # none of its own
