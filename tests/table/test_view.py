"""What users read of a label table, with the tools that they have."""

import datetime as dt
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from deltalake import DeltaTable

from labelmill.errors import SpecError
from labelmill.storage import open_store
from labelmill.table.data_file import put_data_file
from labelmill.table.row import DATA_SCHEMA, SCHEMA
from labelmill.table.table import LabelTable
from labelmill.table.view import current_rows, view_text
from labelmill.table.writer import TableWriter

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


def put(uri: str, model: str, statuses: dict[str, str], day: str = "2026-03-01") -> None:
    writer = TableWriter(uri)
    made = [
        {
            "uri": name, "etag": "e", "size_bytes": 5, "modified_at": NOW, "status": status, "width_px": 60,
            "labels": [{"label": "a", "confidence": 0.5}] if status == "ok" else [],
            "scores": [{"label": "a", "confidence": 0.5}], "model": model, "bundle_digest": model,
            "settings_digest": "s", "run_id": writer.run_id, "labelled_at": NOW,
        }
        for name, status in statuses.items()
    ]  # fmt: skip
    table = pa.Table.from_pylist(made, schema=DATA_SCHEMA)
    writer.commit([put_data_file(open_store(uri), f"labelled_on={day}/{writer.run_id}.parquet", table, day)])


def shown(rows: list[dict]) -> list[tuple[str, str, str]]:
    return sorted((row["uri"], row["model"], row["status"]) for row in rows)


def test_the_current_view_is_the_newest_row_of_each_picture_and_model(uri: str) -> None:
    rows = current_rows(LabelTable(uri)).read_all()
    assert rows.schema == SCHEMA
    assert shown(rows.to_pylist()) == NEWEST
    (row,) = rows.filter((pc.field("uri") == "x") & (pc.field("model") == "digits@2")).to_pylist()
    assert row["labelled_on"] == dt.date(2026, 2, 1)
    assert row["labelled_at"] == row["modified_at"] == NOW
    assert row["labels"] == [{"label": "a", "confidence": 0.5}]


def test_a_few_columns_of_the_view_are_enough(uri: str) -> None:
    rows = current_rows(LabelTable(uri), ["status", "labelled_on"]).read_all()
    assert rows.column_names == ["status", "labelled_on"]
    assert sorted(rows["status"].to_pylist()) == sorted(status for _, _, status in NEWEST)


def test_a_plain_folder_is_read_straight_from_disk_and_alike(tmp_path: Path) -> None:
    uri = str(tmp_path / "model=1" / "labels")
    put(uri, "digits@1", {"x": "fetch_failed", "y": "ok"})
    put(uri, "digits@1", {"x": "ok"})
    rows = current_rows(LabelTable(uri)).read_all()
    assert rows.schema == SCHEMA
    assert shown(rows.to_pylist()) == [("x", "digits@1", "ok"), ("y", "digits@1", "ok")]
    assert set(rows["labelled_on"].to_pylist()) == {dt.date(2026, 3, 1)}


def test_the_text_for_duckdb_is_one_that_works(uri: str, capsys: pytest.CaptureFixture[str]) -> None:
    exec(view_text(uri, "duckdb"), {})
    assert "deleted" in capsys.readouterr().out
    assert shown(duckdb.sql("SELECT * FROM current_labels").to_arrow_table().to_pylist()) == NEWEST
    duckdb.sql("DROP VIEW current_labels")


@pytest.mark.parametrize("engine", ["spark", "trino"])
def test_the_text_for_other_engines_is_plain_sql(uri: str, engine: str) -> None:
    """No Spark and no Trino is here: DuckDB at least understands the query between their own lines."""
    text = view_text(uri, engine)
    query = text[text.index("SELECT") :].rstrip().rstrip(";")
    start, end = query.index("FROM (SELECT *, "), query.index("WHERE place")
    source = query[start:end].rpartition("FROM ")[2].strip().rstrip(")")
    assert source in (f"delta.`{uri}`", "delta.default.labels")
    with duckdb.connect() as connection:
        connection.register("labels", DeltaTable(uri).to_pyarrow_table())
        rows = connection.sql(query.replace(source, "labels")).to_arrow_table()
    assert rows.column_names == SCHEMA.names
    assert shown(rows.to_pylist()) == NEWEST
    assert "Untested" in text


def test_an_unknown_engine_is_told_which_there_are(uri: str) -> None:
    with pytest.raises(SpecError, match="duckdb, spark, trino; got 'presto'"):
        view_text(uri, "presto")


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
    assert shown(current_rows(LabelTable(uri)).read_pandas().to_dict("records")) == NEWEST


def test_polars_reads_the_table_and_the_view(tmp_path: Path) -> None:
    polars = pytest.importorskip("polars", reason="pip install polars")
    uri = str(tmp_path / "labels")  # Polars takes a folder `name=value` above a table for one of its partitions
    fill(uri)
    table = polars.read_delta(uri)
    assert table.height == 7
    assert table.filter(polars.col("status") == "ok")["labels"].list.len().to_list() == [1] * 4
    view = polars.from_arrow(current_rows(LabelTable(uri)).read_all())
    assert shown(view.to_dicts()) == NEWEST


def test_duckdb_reads_the_table_through_arrow(uri: str) -> None:
    labels = DeltaTable(uri).to_pyarrow_dataset()  # noqa: F841 - DuckDB finds it by its name
    counts = duckdb.sql("SELECT l.label, count(*) FROM (SELECT unnest(labels) AS l FROM labels) GROUP BY 1").fetchall()
    assert counts == [("a", 4)]
