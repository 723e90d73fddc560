"""What other tools do to a label table is read as Delta means it, or refused in one line that names the mend."""

import datetime as dt
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pyarrow as pa
import pytest
from deltalake import DeltaTable, Field, write_deltalake

from labelmill.errors import TableError
from labelmill.label.todo.plan import plan_todo
from labelmill.label.todo.settings import Settings
from labelmill.storage import open_store
from labelmill.table.data_file import DataFile, put_data_file
from labelmill.table.row import DATA_SCHEMA
from labelmill.table.table import LabelTable
from labelmill.table.upkeep import compact, find_lost, find_unneeded, repair, vacuum
from labelmill.table.writer import TableWriter
from other_tools import change_metadata, delete_by_vector, set_features
from running import labelmill

DAY = dt.date(2026, 3, 1)
NOW = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


def put(uri: str, name: str, *uris: str) -> DataFile:
    same = {"etag": "e", "size_bytes": 1, "modified_at": NOW, "status": "ok", "model": "digits@1", "labelled_at": NOW}
    same |= {"bundle_digest": "d", "settings_digest": "s", "labels": [{"label": "a", "confidence": 0.5}]}
    rows = [same | {"uri": uri, "run_id": "000000001-x"} for uri in uris]
    table = pa.Table.from_pylist(rows, schema=DATA_SCHEMA)
    return put_data_file(open_store(uri), f"labelled_on={DAY}/{name}.parquet", table, DAY.isoformat())


def fill(uri: str) -> str:
    TableWriter(uri, ["digits@1"]).commit([put(uri, "a", "x0", "x1", "x2", "x3"), put(uri, "b", "y0", "y1", "y2")])
    return uri


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return fill(str(tmp_path / "labels"))


def everybodys(uri: str) -> list[list[str]]:
    """The uris of the rows as each way to read them has them."""
    table = LabelTable(uri)
    streamed = [name for batch in table.batches(["uri"]) for name in batch["uri"].to_pylist()]
    queried = [row["uri"] for row in table.query("SELECT uri FROM labels", ["uri"])]
    viewed = table.current().read_all()["uri"].to_pylist()
    return [sorted(streamed), sorted(queried), sorted(viewed)]


def left_to_do(uri: str, *names: str) -> list[str]:
    """What of these a run would label."""
    item = {"etag": "e", "size_bytes": 1, "modified_at": NOW}
    schema = pa.schema([DATA_SCHEMA.field(name) for name in ("uri", *item)])
    batch = pa.RecordBatch.from_pylist([item | {"uri": name} for name in names], schema=schema)
    aside = open_store(f"{uri}/_labelmill")
    asked = {"models": ["digits@1"], "store": aside, "run_id": f"{uuid4()}"}
    todo = plan_todo(iter([batch]), LabelTable(uri), ["d"], Settings("s"), **asked)
    return [row["uri"] for chunk in range(todo.num_chunks) for row in todo.read(chunk).to_pylist()]


@pytest.mark.parametrize("inline", [True, False])
def test_a_row_that_a_deletion_vector_deletes_is_none(uri: str, inline: bool) -> None:
    delete_by_vector(uri, "a.parquet", [1, 3], inline=inline)
    assert everybodys(uri) == [["x0", "x2", "y0", "y1", "y2"]] * 3
    assert left_to_do(uri, "x0", "x1", "y0") == ["x1"]
    writer = TableWriter(uri)
    writer.commit([put(uri, "c", "x1")])
    assert everybodys(uri) == [["x0", "x1", "x2", "y0", "y1", "y2"]] * 3
    assert writer.compact(DAY, from_files=2) == 2
    assert everybodys(uri) == [["x0", "x1", "x2", "y0", "y1", "y2"]] * 3


def test_a_vacuum_leaves_the_deletion_vectors(uri: str) -> None:
    delete_by_vector(uri, "a.parquet", [0])
    delete_by_vector(uri, "b.parquet", [2])
    assert find_unneeded(uri, older_than_h=0) == vacuum(uri, older_than_h=0) == []
    assert everybodys(uri) == [["x1", "x2", "x3", "y0", "y1"]] * 3


def test_a_deletion_vector_that_is_gone_is_one_line(uri: str) -> None:
    delete_by_vector(uri, "a.parquet", [0])
    next(Path(uri).glob("*.bin")).unlink()
    with pytest.raises(TableError, match=r"which rows .* are deleted cannot be read.*Restore what is missing"):
        everybodys(uri)


def test_rows_that_are_deleted_by_rewriting_their_file_are_labelled_again(uri: str) -> None:
    DeltaTable(uri).delete("uri IN ('x1', 'y0')")
    assert everybodys(uri) == [["x0", "x2", "x3", "y1", "y2"]] * 3
    assert left_to_do(uri, "x0", "x1", "y0") == ["x1", "y0"]
    DeltaTable(uri).delete()
    assert left_to_do(uri, "x0", "x1", "y0") == ["x0", "x1", "y0"]


def test_rows_that_another_tool_writes_are_read(uri: str) -> None:
    """Its files have names, column orders and times of its own."""
    row = {**LabelTable(uri).query("SELECT * FROM labels WHERE uri = 'x0'")[0], "uri": "z"}
    table = pa.Table.from_pylist([row], schema=DATA_SCHEMA.append(pa.field("labelled_on", pa.date32())))
    write_deltalake(uri, table.select(table.column_names[::-1]), mode="append")
    nobody = table.set_column(table.column_names.index("labelled_on"), "labelled_on", pa.nulls(1, pa.date32()))
    write_deltalake(uri, nobody.set_column(0, "uri", pa.array(["no day"])), mode="append")
    assert everybodys(uri) == [["no day", "x0", "x1", "x2", "x3", "y0", "y1", "y2", "z"]] * 3
    assert left_to_do(uri, "z", "no day", "x0", "new") == ["new"]
    assert LabelTable(uri).days() == [DAY]
    compact(uri)
    assert everybodys(uri) == [["no day", "x0", "x1", "x2", "x3", "y0", "y1", "y2", "z"]] * 3


def widen(uri: str) -> None:
    schema = DeltaTable(uri).schema().to_json().replace('"size_bytes","type":"long"', '"size_bytes","type":"double"')
    change_metadata(uri, schemaString=schema)


def map_columns(uri: str) -> None:
    set_features(uri, "columnMapping")
    schema, number = DeltaTable(uri).schema().to_json(), iter(range(1, 100))
    while '"metadata":{}' in schema:
        named = (
            f'"metadata":{{"delta.columnMapping.id":{next(number)},"delta.columnMapping.physicalName":"c{id(uri)}"}}'
        )
        schema = schema.replace('"metadata":{}', named, 1)
    change_metadata(uri, schemaString=schema, configuration={"delta.columnMapping.mode": "name"})


def shallow_clone(uri: str) -> None:
    moved = Path(uri).rename(f"{uri}-origin")
    shutil.copytree(moved / "_delta_log", Path(uri, "_delta_log"))
    for path in Path(uri, "_delta_log").glob("*.json"):
        path.write_text(path.read_text().replace('"path":"', f'"path":"file://{moved}/'))


def divide_by_model(uri: str) -> None:
    rows = DeltaTable(uri).to_pyarrow_table()
    write_deltalake(uri, rows, mode="overwrite", schema_mode="overwrite", partition_by=["model"])


SHAPES: dict[str, tuple[Callable[[str], None], str]] = {
    "type": (widen, "the type of size_bytes is not what it was. Undo that there, or"),
    "mapping": (map_columns, "columnMapping"),
    "partition": (divide_by_model, "divided by .'model'., not by labelled_on"),
    "no partition": (lambda uri: change_metadata(uri, partitionColumns=[]), "divided by no column, not by labelled_on"),
    "feature": (lambda uri: set_features(uri, "featureOfNextYear"), "DROP FEATURE"),
    "clone": (shallow_clone, "files elsewhere, such as file:.*DEEP CLONE"),
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_a_table_in_a_shape_that_is_not_ours_is_refused_in_one_line(uri: str, shape: str) -> None:
    change, match = SHAPES[shape]
    change(uri)
    for reader in (lambda: everybodys(uri), lambda: left_to_do(uri, "x0"), lambda: compact(uri)):
        with pytest.raises(TableError, match=match) as caught:
            reader()
        assert "\n" not in str(caught.value)


def test_a_table_that_only_other_tools_may_write_is_read(uri: str) -> None:
    set_features(uri, "typeWidening")
    assert everybodys(uri)[0] == ["x0", "x1", "x2", "x3", "y0", "y1", "y2"]
    with pytest.raises(TableError, match=r"cannot be written: .*TypeWidening.*DROP FEATURE"):
        TableWriter(uri)


def test_a_table_with_a_further_column_is_read_and_written(uri: str) -> None:
    DeltaTable(uri).alter.add_columns([Field("looked_at_by", "string")])
    TableWriter(uri).commit([put(uri, "c", "z")])
    assert everybodys(uri) == [["x0", "x1", "x2", "x3", "y0", "y1", "y2", "z"]] * 3


def test_a_file_that_is_gone_is_one_line_and_can_be_forgotten(uri: str) -> None:
    Path(uri, f"labelled_on={DAY}", "a.parquet").unlink()
    for reader in (lambda: everybodys(uri), lambda: left_to_do(uri, "x0"), LabelTable(uri).current().read_all):
        with pytest.raises(TableError, match=r"a.parquet is gone, .*labels repair .* --forget") as caught:
            reader()
        assert "\n" not in str(caught.value)
    [lost] = find_lost(uri)
    assert (lost.path, lost.num_rows) == (f"labelled_on={DAY}/a.parquet", 4)
    assert repair(uri) == [lost]
    assert everybodys(uri) == [["y0", "y1", "y2"]] * 3
    assert left_to_do(uri, "x0", "y0") == ["x0"]
    assert find_lost(uri) == repair(uri) == []
    assert LabelTable(uri).versions == {"digits": 1}
    TableWriter(uri).commit([put(uri, "c", "x0")])


def test_a_file_that_is_gone_from_a_bucket_is_one_line_and_can_be_forgotten(s3: str) -> None:
    uri = f"{s3}/labels"
    # Not from this process, whose S3 server would wait for deltalake, which holds the interpreter.
    program = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r}); import table.test_snapshot as here; "
    )
    subprocess.run([sys.executable, "-c", f"{program}here.fill({uri!r})"], check=True)
    open_store(uri).delete(f"labelled_on={DAY}/a.parquet")
    shown = labelmill("labels", uri)
    assert (shown.returncode, shown.stdout.count("rows")) == (1, 0)
    assert "a.parquet is gone" in shown.stderr
    assert "Traceback" not in shown.stderr
    assert "1 files of 4 rows are gone or damaged" in labelmill("labels", "repair", uri).stdout
    assert "1 files of 4 rows forgotten" in labelmill("labels", "repair", uri, "--forget").stdout
    assert "version 4, 1 files" in labelmill("labels", uri).stdout


def test_a_file_that_is_gone_is_forgotten_with_what_was_deleted_in_it(uri: str) -> None:
    delete_by_vector(uri, "a.parquet", [0])
    Path(uri, f"labelled_on={DAY}", "a.parquet").unlink()
    assert [file.path for file in repair(uri)] == [f"labelled_on={DAY}/a.parquet"]
    assert everybodys(uri) == [["y0", "y1", "y2"]] * 3


def test_a_damaged_file_is_one_line_and_nothing_forgets_it(uri: str) -> None:
    path = Path(uri, f"labelled_on={DAY}", "a.parquet")
    data = path.read_bytes()
    path.write_bytes(data[:-400] + os.urandom(392) + data[-8:])
    for reader in (lambda: everybodys(uri), lambda: left_to_do(uri, "x0")):
        with pytest.raises(TableError, match="Restore") as caught:
            reader()
        assert "\n" not in str(caught.value)
    path.write_bytes(data[:-20])
    for reader in (lambda: everybodys(uri), lambda: left_to_do(uri, "x0"), lambda: repair(uri)):
        with pytest.raises(TableError, match=r"a.parquet is damaged: .*delete it and run `labelmill labels repair"):
            reader()
    assert LabelTable(uri).num_files == 2
