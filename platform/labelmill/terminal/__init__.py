"""The terminal: its streams, what may be printed on it and how, and the log that a run writes there."""

from labelmill.terminal.log import log_to
from labelmill.terminal.streams import lost_output, own_streams
from labelmill.terminal.text import encodable, printable, printable_lines
from labelmill.terminal.view import coloured, columns, steerable

__all__ = [
    "coloured",
    "columns",
    "encodable",
    "log_to",
    "lost_output",
    "own_streams",
    "printable",
    "printable_lines",
    "steerable",
]
