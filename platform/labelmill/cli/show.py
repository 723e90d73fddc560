"""`labelmill labels`: what a label table holds, for a person."""

from __future__ import annotations

from itertools import islice
from typing import Any

from labelmill.cli.output import print_table, put
from labelmill.errors import SpecError
from labelmill.table.receipts import past_receipts
from labelmill.table.row import STATUSES
from labelmill.table.table import LabelTable
from labelmill.terminal import printable

__all__ = ["print_labels"]


def print_labels(uri: str, *, status: str | None, limit: int, current: bool, model: str | None) -> None:
    """Print counts by model and status with a reason for each, label counts, and up to `limit` rows."""
    if status is not None and status not in STATUSES:
        raise SpecError(f"--status: expected one of {', '.join(STATUSES)}; got {status!r}")
    table = LabelTable(uri)
    view = f"current_labels {_where(status, None)}" if current else f"labels {_where(status, model)}"
    statuses = table.query(_STATUSES.format(view=view), _NARROW, model=model)
    put(f"{printable(table.uri)}: version {table.version}, {table.num_files} files")
    _print_statuses(statuses, "current rows" if current else "rows")
    _print_label_counts(table.query(_LABELS.format(view=view), _NARROW, model=model))
    _print_receipts(table.uri)
    if limit:
        _print_rows(table.query(_ROWS.format(view=view, limit=int(limit)), _SHOWN, model=model))


_RUNS_SHOWN = 3
_NARROW = ("uri", "model", "run_id", "status", "error", "labels")
_SHOWN = (*_NARROW, "width_px", "height_px", "labelled_at")
_STATUSES = (
    "SELECT model, status, count(*) AS pictures, min(error) AS example FROM {view} "
    "GROUP BY model, status ORDER BY model, pictures DESC"
)
_LABELS = (
    "SELECT model, l.label AS label, count(*) AS pictures, avg(l.confidence) AS confidence "
    "FROM (SELECT model, unnest(labels) AS l FROM {view}) "
    "GROUP BY model, l.label ORDER BY model, pictures DESC LIMIT 40"
)
# A time as text, since Python has none after the year 9999.
_ROWS = (
    "SELECT * REPLACE (strftime(labelled_at, '%Y-%m-%d %H:%M') AS labelled_at) FROM {view} "
    "ORDER BY run_id DESC, uri LIMIT {limit}"
)


def _print_receipts(uri: str) -> None:
    fields = ("run_id", "outcome", "pictures_labelled", "page")
    receipts = islice(past_receipts(uri), _RUNS_SHOWN)
    if rows := [[_said(found.get(field, "")) for field in fields] for found in receipts]:
        print_table(["last runs", "outcome", "labelled", "receipt"], rows)


def _said(value: object) -> str:
    """Of a file that anybody may have written."""
    return f"{value:,}" if isinstance(value, int) else str(value)


def _where(status: str | None, model: str | None) -> str:
    terms = []
    if status:
        terms.append(f"status = '{status}'")
    if model is not None:
        column = "model" if "@" in model else "split_part(model, '@', 1)"
        terms.append(f"{column} = {_quoted(model)}")
    return f"WHERE {' AND '.join(terms)}" if terms else ""


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _print_statuses(rows: list[dict[str, Any]], what: str) -> None:
    cells = [[row["model"], row["status"], f"{row['pictures']:,}", row["example"] or ""] for row in rows]
    print_table(["model", "status", what, "for example"], cells)


def _print_label_counts(rows: list[dict[str, Any]]) -> None:
    cells = [[row["model"], row["label"], f"{row['pictures']:,}", f"{row['confidence']:.3f}"] for row in rows]
    print_table(["model", "label", "pictures", "mean confidence"], cells)


def _print_rows(rows: list[dict[str, Any]]) -> None:
    cells = []
    for row in rows:
        labels = " ".join(f"{pair['label']} {pair['confidence']:.2f}" for pair in row["labels"] or [])
        size = f"{row['width_px']}x{row['height_px']}" if row["width_px"] else ""
        said = labels or row["error"] or ""
        cells.append([row["uri"], row["status"], said, size, row["model"], row["labelled_at"]])
    print_table(["uri", "status", "labels", "size", "model", "labelled (UTC)"], cells)
