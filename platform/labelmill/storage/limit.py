"""How many requests a second this process may send to object stores: a share of what the whole run may.

A spec says it (`max_requests_per_s`), for a store that others live from. There is no place that all processes of a run
ask for leave: the number of those that may work is known to each, and each keeps to its share. A process sends one
request after the other at even distances, with no burst after a pause, so that shares add up to no more than the whole.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["Limit", "limit", "limit_requests", "part_of_driver", "part_of_worker", "requests_limited"]

# Its lease, and a commit in about six seconds: deltalake sends some 15 requests for one, which nobody can hold back.
_DRIVER_PER_S = 4.0
_ASKED_EVERY_S = 2.0


class Limit:
    """Of one process, over all its buckets. `per_s` is asked anew from time to time, as workers come and go."""

    def __init__(self) -> None:
        self._gate = threading.Lock()  # held by whoever is next, the others queue behind it
        self._lock = threading.Lock()
        self._next_at = self._asked_at = 0.0
        self._per_s: Callable[[], float] | None = None
        self._rate = 0.0

    def set(self, per_s: Callable[[], float] | None) -> None:
        with self._lock:
            self._per_s, self._asked_at = per_s, float("-inf")

    def wait(self, *, urgent: bool = False) -> float:
        """Wait until this process may send one more request; the seconds that took. An `urgent` one does not wait, and
        those that do wait longer for it."""
        if self._per_s is None:
            return 0.0
        if urgent:
            self._take(even_if_early=True)
            return 0.0
        started = time.monotonic()
        with self._gate:
            while (early_s := self._take(even_if_early=False)) > 0:
                time.sleep(min(early_s, _ASKED_EVERY_S))
        return time.monotonic() - started

    def _take(self, *, even_if_early: bool) -> float:
        """How much too early it is for a request; none is taken then."""
        with self._lock:
            now = time.monotonic()
            if self._per_s is not None and now >= self._asked_at + _ASKED_EVERY_S:
                self._rate, self._asked_at = self._per_s(), now
            if self._per_s is None or even_if_early or now >= self._next_at:
                self._next_at = max(now, self._next_at) + (1 / self._rate if self._per_s else 0.0)
                return 0.0
            return self._next_at - now


limit = Limit()
"""Of this process."""


def limit_requests(per_s: Callable[[], float] | None) -> None:
    """For as long as this process lives: a worker's, which has one run."""
    limit.set(per_s)


@contextmanager
def requests_limited(per_s: float | None) -> Iterator[None]:
    """For the time of the block; None leaves things as they are."""
    if per_s is None:
        yield
        return
    before = limit._per_s
    limit.set(lambda: per_s)
    try:
        yield
    finally:
        limit.set(before)


def part_of_driver(per_s: float) -> float:
    """Of what a whole run may, while workers are at work."""
    return min(_DRIVER_PER_S, per_s / 2)


def part_of_worker(per_s: float, num_workers: float) -> float:
    return (per_s - part_of_driver(per_s)) / max(1.0, num_workers)
