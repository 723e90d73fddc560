"""What a stream's reader can see: colours, a line that stays in its place, and how many characters in a row."""

import os
import shutil
from typing import TextIO

__all__ = ["coloured", "columns", "steerable"]

_LEAST_COLUMNS = 60


def steerable(stream: TextIO) -> bool:
    """Whether it is a terminal that obeys escape sequences."""
    return stream.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb")


def coloured(stream: TextIO) -> bool:
    """Whether to colour what is written there: not where NO_COLOR says something (https://no-color.org)."""
    return steerable(stream) and not os.environ.get("NO_COLOR")


def columns(stream: TextIO) -> int:
    """How wide a table may be: on a terminal as wide as that, elsewhere a row is a line, however long.

    One that is narrower than a table can be breaks the lines itself: better than columns of two letters.
    """
    return max(shutil.get_terminal_size().columns, _LEAST_COLUMNS) if stream.isatty() else 10_000
