"""How a chunk outlives the workers that die of it.

A picture may take the process down with it, and Ray would hand its chunk to a new worker for ever. So an attempt leaves
a note beside the table, and whoever finds the note of another tries each picture in a child process first.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

from labelmill.errors import ClusterError
from labelmill.storage import open_store

__all__ = ["numbered_attempt", "time_limit"]

_MAX_ATTEMPTS = 4


@contextmanager
def numbered_attempt(folder: str, chunk: int) -> Iterator[int]:
    """Which attempt at this chunk this is, counted by notes that outlive the process; they go with its success."""
    notes, prefix = open_store(folder), f"attempts/{chunk:08d}"
    attempt = 1 + len(list(notes.keys(prefix)))
    if attempt > _MAX_ATTEMPTS:
        raise ClusterError(
            f"the workers that labelled chunk {chunk} died {_MAX_ATTEMPTS} times, while each of its pictures was "
            "decoded well alone. Most likely the machine runs out of memory: lower batch_size, or give workers more "
            "memory, and run the same command again."
        )
    notes.write(f"{prefix}/{attempt}", b"")
    yield attempt
    for number in range(1, attempt + 1):
        notes.delete(f"{prefix}/{number}")


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """End this process when the block takes longer, even when C code in it never gives the interpreter back: the
    kernel sends SIGALRM, which nothing here catches. The chunk's next attempt finds the picture that did it.
    """
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
