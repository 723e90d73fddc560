"""`labelmill labels`: what a label table holds, for a person."""

from __future__ import annotations

from itertools import islice
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from labelmill.errors import SpecError
from labelmill.table.receipts import past_receipts
from labelmill.table.row import STATUSES
from labelmill.table.table import LabelTable

__all__ = ["print_labels"]


def print_labels(
    uri: str, *, status: str | None, limit: int, current: bool, model: str | None, console: Console
) -> None:
    """Print counts by model and status with a reason for each, label counts, and up to `limit` rows."""
    if status and status not in STATUSES:
        raise SpecError(f"--status: expected one of {', '.join(STATUSES)}; got {status!r}")
    table = LabelTable(uri)
    view = f"current_labels {_where(status, None)}" if current else f"labels {_where(status, model)}"
    what = "current rows" if current else "rows"
    console.print(Text(f"{table.uri}: version {table.version}, {table.num_files} files"))
    console.print(_status_table(table.query(_STATUSES.format(view=view), _NARROW, model=model), what))
    console.print(_label_table(table.query(_LABELS.format(view=view), _NARROW, model=model)))
    _print_receipts(table.uri, console)
    if limit:
        console.print(_row_table(table.query(_ROWS.format(view=view, limit=int(limit)), model=model)))


_RUNS_SHOWN = 3
_NARROW = ("uri", "model", "run_id", "status", "error", "labels")
_STATUSES = (
    "SELECT model, status, count(*) AS pictures, min(error) AS example FROM {view} "
    "GROUP BY model, status ORDER BY model, pictures DESC"
)
_LABELS = (
    "SELECT model, l.label AS label, count(*) AS pictures, avg(l.confidence) AS confidence "
    "FROM (SELECT model, unnest(labels) AS l FROM {view}) "
    "GROUP BY model, l.label ORDER BY model, pictures DESC LIMIT 40"
)
_ROWS = "SELECT * FROM {view} ORDER BY run_id DESC, uri LIMIT {limit}"


def _print_receipts(uri: str, console: Console) -> None:
    receipts = list(islice(past_receipts(uri), _RUNS_SHOWN))
    if not receipts:
        return
    table = Table("last runs", "outcome", "labelled", "receipt", box=None, pad_edge=False, header_style="bold")
    for receipt in receipts:
        labelled = f"{receipt.get('pictures_labelled', 0):,}"
        run, outcome, page = (_plain(str(receipt.get(name, ""))) for name in ("run_id", "outcome", "page"))
        table.add_row(run, outcome, labelled, page)
    console.print(table)


def _where(status: str | None, model: str | None) -> str:
    terms = []
    if status:
        terms.append(f"status = '{status}'")
    if model:
        column = "model" if "@" in model else "split_part(model, '@', 1)"
        terms.append(f"{column} = {_quoted(model)}")
    return f"WHERE {' AND '.join(terms)}" if terms else ""


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _status_table(rows: list[dict[str, Any]], what: str) -> Table:
    table = Table("model", "status", what, "for example", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(row["model"], row["status"], f"{row['pictures']:,}", _plain(row["example"] or ""))
    return table


def _label_table(rows: list[dict[str, Any]]) -> Table:
    table = Table("model", "label", "pictures", "mean confidence", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(row["model"], _plain(row["label"]), f"{row['pictures']:,}", f"{row['confidence']:.3f}")
    return table


def _row_table(rows: list[dict[str, Any]]) -> Table:
    table = Table("uri", "status", "labels", "size", "model", "labelled", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        labels = " ".join(f"{pair['label']} {pair['confidence']:.2f}" for pair in row["labels"] or [])
        size = f"{row['width_px']}x{row['height_px']}" if row["width_px"] else ""
        labelled = f"{row['labelled_at']:%Y-%m-%d %H:%M}"
        table.add_row(
            _plain(row["uri"]), row["status"], _plain(labels or row["error"] or ""), size, row["model"], labelled
        )
    return table


def _plain(text: str) -> Text:
    """Names and reasons come from outside: control characters are shown, not obeyed."""
    return Text("".join(c if c.isprintable() else repr(c)[1:-1] for c in text))
