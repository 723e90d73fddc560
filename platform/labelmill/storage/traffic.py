"""What this process asked of its stores: the requests that a bill counts, and the bytes."""

from __future__ import annotations

import threading
from dataclasses import astuple, dataclass

__all__ = ["Traffic", "note_traffic", "traffic"]


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests to object stores as their price lists name them (a HEAD is a GET; a DELETE is free), and bytes.

    A folder has bytes and no requests. What deltalake asks for the table's log, a few requests a commit, is not seen.
    """

    lists: int = 0
    gets: int = 0
    puts: int = 0
    read_bytes: int = 0
    written_bytes: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: Traffic) -> Traffic:
        return Traffic(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))


_lock = threading.Lock()
_so_far = Traffic()


def traffic() -> Traffic:
    """Of this process, from its start until now."""
    return _so_far


def note_traffic(*, lists: int = 0, gets: int = 0, puts: int = 0, read_bytes: int = 0, written_bytes: int = 0) -> None:
    """Called by a store for each request it makes."""
    global _so_far
    with _lock:
        _so_far += Traffic(lists, gets, puts, read_bytes, written_bytes)
