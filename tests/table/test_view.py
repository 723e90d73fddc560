"""What users read of a label table, with the tools that they have."""

import datetime as dt
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable

from labelmill.errors import FencedError, SpecError, TableError
from labelmill.storage import open_store
from labelmill.table.data_file import put_data_file
from labelmill.table.row import DATA_SCHEMA, SCHEMA
from labelmill.table.table import LabelTable
from labelmill.table.writer import TableWriter
from other_tools import delete_by_vector

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
NEWEST = [("x", "cats@1", "ok"), ("x", "digits@2", "ok"), ("y", "digits@2", "deleted"), ("z", "digits@1", "unreadable")]


@pytest.fixture(scope="module")
def uri(tmp_path_factory) -> str:
    uri = str(tmp_path_factory.mktemp("it's [a] model=1 folder") / "labels")
    fill(uri)
    return uri


def fill(uri: str) -> None:
    put(uri, "digits@1", {"x": "ok", "y": "ok", "z": "fetch_failed"})
    put(uri, "digits@1", {"z": "unreadable"})
    put(uri, "digits@2", {"x": "ok", "y": "deleted"}, day="2026-02-01")  # a clock that went back
    put(uri, "cats@1", {"x": "ok"})


def put(uri: str, model: str, statuses: dict[str, str], day: str = "2026-03-01", etag: str = "e") -> None:
    writer = TableWriter(uri, [model])
    made = [
        {
            "uri": name, "etag": etag, "size_bytes": 5, "modified_at": NOW, "status": status, "width_px": 60,
            "labels": [{"label": "a", "confidence": 0.5}] if status == "ok" else [],
            "scores": [{"label": "a", "confidence": 0.5}], "model": model, "bundle_digest": model,
            "settings_digest": "s", "run_id": writer.run_id, "labelled_at": NOW,
        }
        for name, status in statuses.items()
    ]  # fmt: skip
    table = pa.Table.from_pylist(made, schema=DATA_SCHEMA)
    writer.commit([put_data_file(open_store(uri), f"labelled_on={day}/{writer.run_id}.parquet", table, day)])


def text_of(uri: str, dialect: str) -> str:
    return LabelTable(uri).view_text(uri, dialect)


def shown(rows: list[dict]) -> list[tuple[str, str, str]]:
    return sorted((row["uri"], row["model"], row["status"]) for row in rows)


def test_the_current_view_is_the_newest_row_of_each_picture_and_model(uri: str) -> None:
    rows = LabelTable(uri).current().read_all()
    assert rows.schema == SCHEMA
    assert shown(rows.to_pylist()) == NEWEST
    (row,) = rows.filter((pc.field("uri") == "x") & (pc.field("model") == "digits@2")).to_pylist()
    assert row["labelled_on"] == dt.date(2026, 2, 1)
    assert row["labelled_at"] == row["modified_at"] == NOW
    assert row["labels"] == [{"label": "a", "confidence": 0.5}]


@pytest.fixture
def rolled_back(tmp_path: Path) -> str:
    """Labelled by version 1, then by version 2, which also saw a picture that changed, one that went, one that is new;
    then the model was rolled back, and a run had nothing to do of what it was asked for."""
    uri = str(tmp_path / "labels")
    put(uri, "digits@1", dict.fromkeys(("both", "changed", "gone", "first"), "ok"))
    put(uri, "cats@4", {"both": "ok"})
    put(uri, "digits@2", dict.fromkeys(("both", "new"), "ok"))
    put(uri, "digits@2", {"changed": "ok"}, etag="f")
    put(uri, "digits@2", {"gone": "deleted"})
    TableWriter(uri, ["digits@1"])
    return uri


OF_FIRST = [
    ("both", "cats@4", "ok"), ("both", "digits@1", "ok"), ("changed", "digits@2", "ok"), ("first", "digits@1", "ok"),
    ("gone", "digits@2", "deleted"), ("new", "digits@2", "ok"),
]  # fmt: skip
OF_SECOND = [(uri, "digits@2" if uri == "both" and model != "cats@4" else model, s) for uri, model, s in OF_FIRST]


def test_a_rollback_reaches_the_labels(rolled_back: str) -> None:
    """A version's row counts while it speaks of the picture as it was last seen."""
    table = LabelTable(rolled_back)
    assert table.versions == {"digits": 1, "cats": 4}
    assert shown(table.current().read_all().to_pylist()) == OF_FIRST
    assert shown(table.query("SELECT * FROM current_labels")) == OF_FIRST
    TableWriter(rolled_back, ["digits@2"])
    assert shown(LabelTable(rolled_back).current().read_all().to_pylist()) == OF_SECOND
    TableWriter(rolled_back)  # upkeep names no model
    assert shown(LabelTable(rolled_back).current().read_all().to_pylist()) == OF_SECOND


def test_any_version_can_be_asked_for(rolled_back: str) -> None:
    table = LabelTable(rolled_back)

    def of(model: str) -> list[tuple[str, str, str]]:
        return shown(table.current(model=model, columns=["uri", "model", "status"]).read_all().to_pylist())

    assert of("digits@2") == [row for row in OF_SECOND if row[1] != "cats@4"]
    assert of("digits@1") == of("digits") == [row for row in OF_FIRST if row[1] != "cats@4"]
    assert of("cats@4") == of("cats") == [("both", "cats@4", "ok")]
    assert of("it's") == []
    with pytest.raises(TableError, match=r"no row of digits@7 in .*: `labelmill labels"):
        of("digits@7")
    for alias in ("digits@current", "digits@", "@1", ""):
        with pytest.raises(SpecError, match=r"digits@3; got .*models show"):
            of(alias)


def test_a_rollback_within_a_compacted_table_and_after_its_log_was_cleaned(rolled_back: str) -> None:
    writer = TableWriter(rolled_back)
    writer.compact(dt.date(2026, 3, 1), from_files=2)
    DeltaTable(rolled_back).create_checkpoint()
    last = DeltaTable(rolled_back).version()
    for number in range(last):
        Path(rolled_back, "_delta_log", f"{number:020d}.json").unlink()
    assert shown(LabelTable(rolled_back).current().read_all().to_pylist()) == OF_FIRST


def test_the_version_is_committed_by_the_writer_that_has_the_table(rolled_back: str) -> None:
    """In its first commit, which fences off those before it; one that names no other version changes nothing."""
    old = TableWriter(rolled_back, ["digits@1"])
    before = DeltaTable(rolled_back).history(1)[0]
    assert (before["operation"], before["run_id"]) == ("WRITE", old.run_id)
    new = TableWriter(rolled_back, ["digits@2", "digits@1", "cats@4"])
    after = DeltaTable(rolled_back).history(1)[0]
    assert (after["operation"], after["run_id"]) == ("SET TBLPROPERTIES", new.run_id)
    assert LabelTable(rolled_back).versions == {"digits": 2, "cats": 4}  # of two in one run the first
    with pytest.raises(FencedError):
        old.commit([])
    new.commit([])


def test_a_table_of_before_that_no_run_has_named_a_version_for_shows_the_newest(tmp_path: Path) -> None:
    uri = str(tmp_path / "labels")
    put(uri, "digits@1", {"x": "ok"})
    put(uri, "digits@2", {"x": "ok"})
    DeltaTable(uri).alter.set_table_properties({"labelmill.version.digits": "of another tool"}, False)
    assert LabelTable(uri).versions == {}
    assert shown(LabelTable(uri).current().read_all().to_pylist()) == [("x", "digits@2", "ok")]
    assert "the newest row" in text_of(uri, "spark")


def test_the_printed_text_stays_with_the_version_of_its_printing_and_says_so(rolled_back: str) -> None:
    text = text_of(rolled_back, "duckdb")
    head = [line for line in text.splitlines() if line.startswith("# ")]
    assert "cats@4, digits@1" in head[0]
    assert f"version {LabelTable(rolled_back).version} of the table" in head[0]
    TableWriter(rolled_back, ["digits@2"])
    exec(text, {})
    assert shown(duckdb.sql("SELECT * FROM current_labels").to_arrow_table().to_pylist()) == OF_FIRST
    duckdb.sql("DROP VIEW current_labels")


def test_the_printed_text_knows_of_rows_that_another_tool_deleted(tmp_path: Path) -> None:
    uri = str(tmp_path / "labels")
    put(uri, "digits@1", {"x": "ok", "y": "ok", "z": "ok"})
    [name] = [path.name for path in Path(uri).rglob("labelled_on=*/*.parquet")]
    delete_by_vector(uri, name, [1])
    exec(text_of(uri, "duckdb"), {})
    for _ in range(2):
        rows = duckdb.sql("SELECT * FROM current_labels").to_arrow_table().to_pylist()
        assert shown(rows) == [("x", "digits@1", "ok"), ("z", "digits@1", "ok")]
    duckdb.sql("DROP VIEW current_labels")


def test_a_few_columns_of_the_view_are_enough(uri: str) -> None:
    rows = LabelTable(uri).current(columns=["status", "labelled_on"]).read_all()
    assert rows.column_names == ["status", "labelled_on"]
    assert sorted(rows["status"].to_pylist()) == sorted(status for _, _, status in NEWEST)


def test_a_plain_folder_is_read_straight_from_disk_and_alike(tmp_path: Path) -> None:
    uri = str(tmp_path / "model=1" / "labels")
    put(uri, "digits@1", {"x": "fetch_failed", "y": "ok"})
    put(uri, "digits@1", {"x": "ok"})
    rows = LabelTable(uri).current().read_all()
    assert rows.schema == SCHEMA
    assert shown(rows.to_pylist()) == [("x", "digits@1", "ok"), ("y", "digits@1", "ok")]
    assert set(rows["labelled_on"].to_pylist()) == {dt.date(2026, 3, 1)}


def test_the_text_for_duckdb_is_one_that_works(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(text_of(uri, "duckdb"), {})
    assert "deleted" in capsys.readouterr().out
    assert shown(duckdb.sql("SELECT * FROM current_labels").to_arrow_table().to_pylist()) == NEWEST
    duckdb.sql("DROP VIEW current_labels")


@pytest.mark.parametrize("engine", ["spark", "trino"])
def test_the_text_for_other_engines_is_plain_sql(uri: str, engine: str) -> None:
    """No Spark and no Trino is here: DuckDB at least understands the query between their own lines."""
    text = text_of(uri, engine)
    query = text[text.index("SELECT") :].rstrip().rstrip(";")
    source = query[: query.index("WHERE place")].rpartition("FROM ")[2].strip().rstrip(")")
    assert source in (f"delta.`{uri}`", "delta.default.labels")
    with duckdb.connect() as connection:
        connection.register("labels", DeltaTable(uri).to_pyarrow_table())
        rows = connection.sql(query.replace(source, "labels")).to_arrow_table()
    assert rows.column_names == SCHEMA.names
    assert shown(rows.to_pylist()) == NEWEST
    assert "Untested" in text


def test_an_unknown_engine_is_told_which_there_are(uri: str) -> None:
    with pytest.raises(SpecError, match="duckdb, spark, trino; got 'presto'"):
        text_of(uri, "presto")


def test_pyarrow_reads_the_table(uri: str) -> None:
    rows = DeltaTable(uri).to_pyarrow_dataset().to_table(filter=pc.field("status") == "ok")
    assert shown(rows.to_pylist()) == [
        ("x", "cats@1", "ok"), ("x", "digits@1", "ok"), ("x", "digits@2", "ok"), ("y", "digits@1", "ok"),
    ]  # fmt: skip


def test_pandas_reads_the_table_and_the_view(uri: str) -> None:
    pytest.importorskip("pandas")
    assert DeltaTable(uri).to_pandas()["status"].value_counts().to_dict() == {
        "ok": 4, "fetch_failed": 1, "unreadable": 1, "deleted": 1,
    }  # fmt: skip
    assert shown(LabelTable(uri).current().read_pandas().to_dict("records")) == NEWEST


def test_polars_reads_the_table_and_the_view(tmp_path: Path) -> None:
    polars = pytest.importorskip("polars", reason="pip install polars")
    uri = str(tmp_path / "labels")  # Polars takes a folder `name=value` above a table for one of its partitions
    fill(uri)
    table = polars.read_delta(uri)
    assert table.height == 7
    assert table.filter(polars.col("status") == "ok")["labels"].list.len().to_list() == [1] * 4
    view = polars.from_arrow(LabelTable(uri).current().read_all())
    assert shown(view.to_dicts()) == NEWEST


def test_duckdb_reads_the_table_through_arrow(uri: str) -> None:
    labels = DeltaTable(uri).to_pyarrow_dataset()  # noqa: F841 - DuckDB finds it by its name
    counts = duckdb.sql("SELECT l.label, count(*) FROM (SELECT unnest(labels) AS l FROM labels) GROUP BY 1").fetchall()
    assert counts == [("a", 4)]
