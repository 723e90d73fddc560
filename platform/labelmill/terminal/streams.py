"""The streams of a command. They are always there, take every character, and never raise: a run does not end because
nobody reads what it says. What could not be written is remembered, as C's `ferror` does."""

import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

__all__ = ["lost_output", "open_stream", "own_streams"]


class Descriptor(io.FileIO):
    """Where a stream ends. `lost` says why something did not arrive: a full disk, a reader that is gone."""

    lost: OSError | None = None

    def write(self, data: "ReadableBuffer", /) -> int:
        rest = view = memoryview(data).cast("B")
        while rest:
            try:
                written = super().write(rest)
            except OSError as exc:
                self.lost = self.lost or exc
                break
            if written is None:  # another process made it one that does not wait
                select.select([], [self], [])
            rest = rest[written or 0 :]
        return len(view)


@contextmanager
def own_streams() -> Iterator[None]:
    """For the time of the block stdin, stdout and stderr are open, whatever the process was started with.

    Streams that somebody put in the place of the process's own, a test say, are left alone.
    """
    _open_those_that_are_closed()
    before = sys.stdin, sys.stdout, sys.stderr
    sys.stdin = sys.stdin or open(0, closefd=False)  # noqa: SIM115
    if sys.stdout is sys.__stdout__:
        sys.stdout = open_stream(sys.stdout.fileno() if sys.stdout else 1, like=sys.stdout)
    if sys.stderr is sys.__stderr__:
        sys.stderr = open_stream(sys.stderr.fileno() if sys.stderr else 2, like=sys.stderr)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        sys.stdin, sys.stdout, sys.stderr = before


def open_stream(descriptor: int, *, like: TextIO | None, closefd: bool = False) -> TextIO:
    """A stream on a descriptor in the encoding of another one. A character that this does not have is escaped."""
    buffer = io.BufferedWriter(Descriptor(descriptor, "w", closefd=closefd))
    return io.TextIOWrapper(
        buffer,
        encoding=like.encoding if like else "utf-8",
        errors="backslashreplace",
        line_buffering=descriptor != 1 or buffer.isatty(),
        write_through=bool(getattr(like, "write_through", False)),
    )


def lost_output() -> OSError | None:
    """Why something that was written to stdout did not arrive; None when all did."""
    sys.stdout.flush()
    end = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return end.lost if isinstance(end, Descriptor) else None


def _open_those_that_are_closed() -> None:
    """Else the next file that is opened takes the number, and gets what is meant for the terminal.

    Stdout becomes one that nothing can be written to, so that a command whose output goes there says so.
    """
    for descriptor, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, mode)
            os.dup2(opened, descriptor)  # to itself, most often
            os.set_inheritable(descriptor, True)
            if opened != descriptor:
                os.close(opened)
