"""How a chunk outlives the workers that die of it.

A picture may take the process down with it, and Ray would hand its chunk to a new worker for ever. So an attempt leaves
a note beside the table, and whoever finds the note of another tries each picture in a child process first.
"""

from __future__ import annotations

import itertools
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from labelmill.errors import ClusterError, ImageError
from labelmill.images.trial import Trial
from labelmill.label.work.fetch import Fetched
from labelmill.label.work.stage import Stage
from labelmill.storage import open_store

__all__ = ["numbered_attempt", "time_limit", "trial_of", "tried"]

_MAX_ATTEMPTS = 4


@contextmanager
def numbered_attempt(folder: str, chunk: int, step: str = "") -> Iterator[int]:
    """Which attempt at this step of the chunk this is, counted by notes that outlive the process, and nothing
    else."""
    notes, prefix = open_store(folder), f"attempts/{chunk:08d}{step}"
    attempt = 1 + len(list(notes.keys(prefix)))
    if attempt > _MAX_ATTEMPTS:
        raise ClusterError(
            f"the workers that labelled chunk {chunk} died {_MAX_ATTEMPTS} times, while each of its pictures was "
            "decoded well alone. Most likely the machine runs out of memory: lower batch_size, or give workers more "
            "memory, and run the same command again."
        )
    notes.write(f"{prefix}/{attempt}", b"")
    try:
        yield attempt
    finally:
        for number in range(1, attempt + 1):
            notes.delete(f"{prefix}/{number}")


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """End this process when the block takes longer, even when C code in it never gives the interpreter back: the
    kernel sends SIGALRM, which nothing here catches. The chunk's next attempt finds the picture that did it. Several
    threads may be in such a block: there is one alarm, and it is set for whoever's time is over first.
    """
    with _LOCK:
        number = next(_NUMBERS)
        _DEADLINES[number] = time.monotonic() + seconds
        _set_alarm()
    try:
        yield
    finally:
        with _LOCK:
            del _DEADLINES[number]
            _set_alarm()


def trial_of(stage: Stage) -> Trial:
    """A child that decodes as this run's workers do."""
    preprocessings = [bundle.preprocessing for bundle in stage.bundles]
    return Trial(preprocessings, max_pixels=stage.max_pixels, timeout_s=stage.timeout_s)


def tried(item: Fetched, trial: Trial) -> Fetched:
    """The picture, or what it did to the child that decoded it."""
    if isinstance(item, bytes):
        try:
            trial.decode(item)
        except ImageError as exc:
            return exc
    return item


_LOCK, _NUMBERS = threading.Lock(), itertools.count()
_DEADLINES: dict[int, float] = {}


def _set_alarm() -> None:
    left_s = max(min(_DEADLINES.values()) - time.monotonic(), 1e-3) if _DEADLINES else 0.0
    signal.setitimer(signal.ITIMER_REAL, left_s)
