"""The current view of a label table in SQL: one row of each picture and name of a model.

It is the row of one version of the model, which is named in the text, where that version has one of the picture as it
was last seen; else the newest. Runs on one table follow one another, and their ids begin with a number that the
table's own log gives out, so the newest row is the one with the greatest `run_id`, whatever any clock says. A picture
that is gone stays in the view, with status `deleted`: whoever wants only what there is adds `WHERE status = 'ok'`.
"""

from __future__ import annotations

from collections.abc import Mapping

from labelmill.errors import SpecError
from labelmill.table.row import SCHEMA

__all__ = ["NEEDED", "current_view", "name_is", "view_text"]

NEEDED = ("uri", "etag", "status", "model", "run_id")
"""The columns without which there is no view."""

_NAME = "split_part(model, '@', 1)"
_ONE = f"PARTITION BY uri, {_NAME}"
_VIEW = f"""\
SELECT {{columns}}
FROM (SELECT *, row_number() OVER ({_ONE} ORDER BY {{first}}run_id DESC, model DESC) AS place
      FROM (SELECT *, first_value(etag) OVER ({_ONE} ORDER BY run_id DESC) AS last_etag,
                   first_value(status) OVER ({_ONE} ORDER BY run_id DESC) AS last_status
            FROM {{labels}}))
WHERE place = 1"""
_OF_VERSION = "CASE WHEN model IN ({models}) AND etag = last_etag AND last_status <> 'deleted' THEN 0 ELSE 1 END, "


def current_view(versions: Mapping[str, int], columns: str, labels: str = "labels") -> str:
    """A SELECT of `columns` of the view over `labels`, with these versions of the models of these names."""
    models = ", ".join(f"'{name}@{version}'" for name, version in sorted(versions.items()))
    return _VIEW.format(columns=columns, first=_OF_VERSION.format(models=models) if models else "", labels=labels)


def name_is(name: str) -> str:
    """A condition: the row's model is a version of this one."""
    quoted = name.replace("'", "''")
    return f"{_NAME} = '{quoted}'"


def view_text(
    uri: str, dialect: str, versions: Mapping[str, int], *, table_version: int, has_deletion_vectors: bool = False
) -> str:
    """What a user pastes to have the view as `current_labels`, over the table at `uri`.

    Where another tool deletes rows by deletion vectors, DuckDB gets the table as Arrow's, in memory: no data set knows
    of them. Its text (Python) is run by our tests; those for Spark and Trino are written by their manuals, not run.
    """
    if dialect not in _TEXTS:
        raise SpecError(f"--for: expected one of {', '.join(_TEXTS)}; got {dialect!r}")
    text, comment, labels = _TEXTS[dialect]
    view = current_view(versions, ", ".join(SCHEMA.names), labels.format(uri=uri))
    read = "scan().read_all()" if has_deletion_vectors else "to_pyarrow_dataset()"
    return "".join(f"{comment} {line}\n" for line in _pinned(versions, table_version)) + text.format(
        uri=uri, view=view, read=read
    )


def _pinned(versions: Mapping[str, int], table_version: int) -> list[str]:
    if not versions:
        return [f"Printed at version {table_version} of the table: of each picture and model the newest row."]
    models = ", ".join(f"{name}@{version}" for name, version in sorted(versions.items()))
    return [
        f"The rows of {models}, to which the last runs resolved their models when this was printed, at version "
        f"{table_version} of the table;",
        "the newest of pictures of which they have none. Print it anew after a promotion or a rollback.",
    ]


_TEXTS: dict[str, tuple[str, str, str]] = {
    "duckdb": (
        """\
import duckdb
from deltalake import DeltaTable

duckdb.register("labels", DeltaTable({uri!r}).{read})
duckdb.sql(\"\"\"
CREATE VIEW current_labels AS
{view}
\"\"\")
print(duckdb.sql("SELECT status, count(*) AS pictures FROM current_labels GROUP BY status"))
""",
        "#",
        "labels",
    ),
    "spark": (
        """\
-- Untested here. Spark 3.4 or newer with Delta Lake; s3:// is s3a:// for Spark's own reader.
CREATE OR REPLACE TEMPORARY VIEW current_labels AS
{view};
""",
        "--",
        "delta.`{uri}`",
    ),
    "trino": (
        """\
-- Untested here. A catalog named delta with the Delta Lake connector, and delta.register-table-procedure.enabled=true.
CALL delta.system.register_table(schema_name => 'default', table_name => 'labels', table_location => '{uri}');
CREATE OR REPLACE VIEW delta.default.current_labels AS
{view};
""",
        "--",
        "delta.default.labels",
    ),
}
