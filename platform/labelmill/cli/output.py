"""What commands print: lines, findings with a mark, and tables."""

import sys
from collections.abc import Iterable

from labelmill.terminal import coloured, columns, encodable, printable

__all__ = ["print_findings", "print_table", "put"]

_GREEN, _RED, _PLAIN = "\x1b[32m", "\x1b[31m", "\x1b[0m"


def put(line: str, *, err: bool = False) -> None:
    """Write a line to stdout, or to stderr."""
    (sys.stderr if err else sys.stdout).write(f"{line}\n")


def print_findings(lines: Iterable[tuple[str, str, bool, str]], *, width: int) -> None:
    marks = ("✓", "✗") if encodable("✓✗", sys.stdout.encoding) == "✓✗" else ("ok", "--")
    for subject, place, ok, detail in lines:
        mark = marks[0] if ok else marks[1]
        if coloured(sys.stdout):
            mark = f"{_GREEN if ok else _RED}{mark}{_PLAIN}"
        put(f"{mark} {subject:<8}  {printable(place):<{width}}  {printable(detail)}")


def print_table(header: list[str] | None, rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, show_header=header is not None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for title in header or rows[0]:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*(encodable(printable(cell), sys.stdout.encoding) for cell in row))
    Console(
        force_terminal=coloured(sys.stdout),
        color_system="standard" if coloured(sys.stdout) else None,
        width=columns(sys.stdout),
        highlight=False,
        markup=False,
        emoji=False,
    ).print(table)
