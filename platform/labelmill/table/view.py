"""The current view of a label table: of each picture and model name the newest row.

Runs on one table follow one another, and their ids begin with a number that the table's own log gives out, so the
newest row is the one with the greatest `run_id`, whatever any clock says. A picture that is gone stays in the view,
with status `deleted`: whoever wants only what there is adds `WHERE status = 'ok'`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import duckdb
import pyarrow as pa

from labelmill.errors import SpecError
from labelmill.table.row import SCHEMA
from labelmill.table.table import LabelTable

__all__ = ["CURRENT_VIEW", "current_rows", "view_text"]

_BATCH_ROWS = 100_000
_NEWEST = "row_number() OVER (PARTITION BY uri, split_part(model, '@', 1) ORDER BY run_id DESC)"
CURRENT_VIEW = f"SELECT * FROM labels QUALIFY {_NEWEST} = 1"
"""In DuckDB's SQL, over a relation `labels` with all columns, or at least with uri, model and run_id."""


def current_rows(
    table: LabelTable, columns: Sequence[str] | None = None, *, memory_limit: str = "2GB"
) -> pa.RecordBatchReader:
    """Stream the current view's `columns` (default all of SCHEMA), in no order; DuckDB spills what does not fit."""
    schema = pa.schema([SCHEMA.field(name) for name in columns or SCHEMA.names])
    return pa.RecordBatchReader.from_batches(schema, _current_batches(table, schema, memory_limit))


def _current_batches(table: LabelTable, schema: pa.Schema, memory_limit: str) -> Iterator[pa.RecordBatch]:
    wanted = ", ".join(schema.names)
    with TemporaryDirectory(prefix="labelmill-view-") as folder:
        config = {"memory_limit": memory_limit, "temp_directory": str(Path(folder)), "preserve_insertion_order": False}
        with duckdb.connect(config=config) as connection:
            table.attach(connection, "labels", list(dict.fromkeys([*schema.names, "uri", "model", "run_id"])))
            for batch in connection.sql(f"SELECT {wanted} FROM ({CURRENT_VIEW})").to_arrow_reader(_BATCH_ROWS):
                yield pa.Table.from_batches([batch]).cast(schema).combine_chunks().to_batches()[0]


def view_text(uri: str, dialect: str) -> str:
    """What a user pastes to have the view as `current_labels`, over the table at `uri`.

    The text for DuckDB (Python) is run by our tests; those for Spark and Trino are written by their manuals, not run.
    """
    if dialect not in _TEXTS:
        raise SpecError(f"--for: expected one of {', '.join(_TEXTS)}; got {dialect!r}")
    return _TEXTS[dialect].format(uri=uri, columns=", ".join(SCHEMA.names), newest=_NEWEST)


_TEXTS: dict[str, str] = {
    "duckdb": """\
import duckdb
from deltalake import DeltaTable

duckdb.register("labels", DeltaTable({uri!r}).to_pyarrow_dataset())
duckdb.sql(\"\"\"
CREATE VIEW current_labels AS
SELECT * FROM labels
QUALIFY {newest} = 1
\"\"\")
print(duckdb.sql("SELECT status, count(*) AS pictures FROM current_labels GROUP BY status"))
""",
    "spark": """\
-- Untested here. Spark 3.4 or newer with Delta Lake; s3:// is s3a:// for Spark's own reader.
CREATE OR REPLACE TEMPORARY VIEW current_labels AS
SELECT {columns}
FROM (SELECT *, {newest} AS place
      FROM delta.`{uri}`)
WHERE place = 1;
""",
    "trino": """\
-- Untested here. A catalog named delta with the Delta Lake connector, and delta.register-table-procedure.enabled=true.
CALL delta.system.register_table(schema_name => 'default', table_name => 'labels', table_location => '{uri}');
CREATE OR REPLACE VIEW delta.default.current_labels AS
SELECT {columns}
FROM (SELECT *, {newest} AS place
      FROM delta.default.labels)
WHERE place = 1;
""",
}
