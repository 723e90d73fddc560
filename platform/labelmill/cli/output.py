"""What commands print beside single lines: findings with a mark, and tables."""

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import typer

from labelmill.terminal import printable

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["console", "print_findings", "print_table"]


def print_findings(lines: Iterable[tuple[str, str, bool, str]], *, width: int) -> None:
    marks = ("✓", "✗") if _can_print("✓✗") else ("ok", "--")
    for subject, place, ok, detail in lines:
        mark = typer.style(marks[0], fg="green") if ok else typer.style(marks[1], fg="red")
        typer.echo(f"{mark} {subject:<8}  {printable(place):<{width}}  {printable(detail)}")


def _can_print(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True


def console() -> "Console":
    from rich.console import Console

    # Not on a terminal a line is a row, however long.
    return Console(highlight=False, markup=False, emoji=False, width=None if sys.stdout.isatty() else 10_000)


def print_table(header: list[str] | None, rows: list[list[str]]) -> None:
    from rich.table import Table

    table = Table(box=None, show_header=header is not None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in header or rows[0]:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(printable(cell) for cell in row))
    console().print(table)
