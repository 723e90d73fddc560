"""What a run says while it runs: lines in a log, and on a terminal one line of progress that stays in its place."""

import io
import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from labelmill.terminal.streams import open_stream
from labelmill.terminal.text import printable, printable_lines
from labelmill.terminal.view import steerable

__all__ = ["log_to"]

_PASSING_S = 5.0


@contextmanager
def log_to(stream: TextIO) -> Iterator[None]:
    """Send the log to `stream` for the time of the block: ours from INFO on, anybody else's from WARNING on.

    A file is written through a descriptor of its own, since stderr's is turned away while Ray starts.
    """
    with _own(stream) as own, _log_to(own):
        yield


@contextmanager
def _own(stream: TextIO) -> Iterator[TextIO]:
    try:
        descriptor = os.dup(stream.fileno())
    except io.UnsupportedOperation:
        yield stream
        return
    with open_stream(descriptor, like=stream, closefd=True) as own:
        yield own


@contextmanager
def _log_to(stream: TextIO) -> Iterator[None]:
    handler = _Live(stream) if steerable(stream) else _Lines(stream)
    handler.setFormatter(_Plain("%(asctime)s  %(message)s", "%H:%M:%SZ"))
    root, ours = logging.getLogger(), logging.getLogger("labelmill")
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        handler.clear()
        root.removeHandler(handler)


class _Plain(logging.Formatter):
    """What our own code has to say, for a person, in UTC; where anything else speaks, or warns, it is named."""

    converter = staticmethod(time.gmtime)

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name is the library's
        """What we say is one line, whatever a file's name holds."""
        text = super().formatMessage(record)
        return printable(text) if record.name.partition(".")[0] == "labelmill" else text

    def format(self, record: logging.LogRecord) -> str:
        text = printable_lines(super().format(record))
        if record.levelno == logging.INFO:
            return text
        return f"{text}  ({record.levelname.lower()} of {record.name})"


class _Lines(logging.StreamHandler[TextIO]):
    """A line a record. Of the passing ones, which say how a run goes now, one in five seconds is enough."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._said_at = time.monotonic()

    def emit(self, record: logging.LogRecord) -> None:
        if getattr(record, "passing", False):
            if time.monotonic() - self._said_at < _PASSING_S:
                return
            self._said_at = time.monotonic()
        super().emit(record)

    def clear(self) -> None:
        """Nothing of ours stands on the last line."""


class _Live(_Lines):
    """A terminal: the passing record takes the place of the one before it, and makes way for all others."""

    def emit(self, record: logging.LogRecord) -> None:
        if not getattr(record, "passing", False):
            self.clear()
            super().emit(record)
            return
        width = _width(self.stream)
        self.stream.write(f"\r\x1b[K{self.format(record)[: width - 1]}")
        self.stream.flush()

    def clear(self) -> None:
        self.stream.write("\r\x1b[K")
        self.stream.flush()


def _width(stream: TextIO) -> int:
    try:
        return os.get_terminal_size(stream.fileno()).columns or 80
    except OSError:
        return 80
