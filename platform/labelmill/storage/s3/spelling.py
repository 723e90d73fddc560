"""How a server writes names in its listings.

XML cannot carry every name, so we ask for encoded ones (`encoding-type=url`), and not every server does as it says:
some leave names as they are, some encode keys and not folders, some write a plus as it is. A name that they may mean in
several ways is looked up under each.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Sequence
from urllib.parse import unquote, unquote_plus

from labelmill.errors import StorageError

__all__ = ["Spelling"]

_Way = Callable[[str], str]
_LOOKED_UP = 8  # of a page, where one does not tell
_STRAY_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")


class Spelling:
    """Of one server and kind of name. `is_there` looks whether something has a name; it is asked once, as a rule, and
    only where a listing has a plus or a percent sign."""

    def __init__(self, is_there: Callable[[str], bool], server: str) -> None:
        self._is_there, self._server = is_there, server
        self._ways: tuple[_Way, ...] = ()
        self._lock = threading.Lock()

    def read(self, names: Sequence[str], prefix: str, *, encoded: bool) -> list[str]:
        """The names as they are, which all begin with `prefix`. StorageError: they do not, in whatever way."""
        doubtful = [name for name in names if "+" in name or "%" in name]
        way: _Way = str
        if doubtful:
            with self._lock:
                self._ways = self._left(names, doubtful, prefix, self._ways or _likely(encoded))
                way = self._ways[0]
        read = list(map(way, names)) if doubtful else list(names)
        if not all(name.startswith(prefix) for name in read):
            raise self._strange(next(name for name in read if not name.startswith(prefix)), prefix)
        return read

    def _left(
        self, names: Sequence[str], doubtful: Sequence[str], prefix: str, ways: tuple[_Way, ...]
    ) -> tuple[_Way, ...]:
        """The ways in which all of these can be read, the most likely first."""
        if any(" " in name for name in names):
            ways = tuple(way for way in ways if way is not unquote_plus)
        if any(map(_STRAY_PERCENT.search, doubtful)):
            ways = tuple(way for way in ways if way is str)
        left = [way for way in ways if _fits(way, doubtful, prefix)]
        if not left:
            raise self._strange(doubtful[0], prefix)
        for name in [name for name in doubtful if len({way(name) for way in left}) > 1][:_LOOKED_UP]:
            readings = dict.fromkeys(way(name) for way in left)
            if len(readings) > 1 and (there := {reading for reading in readings if self._is_there(reading)}):
                left = [way for way in left if way(name) in there]
        return tuple(left)

    def _strange(self, name: str, prefix: str) -> StorageError:
        return StorageError(
            f"{self._server} was asked for names that begin with {prefix!r} and lists {name!r}: it ignores the prefix, "
            "or encodes some names and others not. Mend the server, or name the pictures by a manifest."
        )


def _fits(way: _Way, names: Sequence[str], prefix: str) -> bool:
    """Whether these can be names below the prefix, and no two the same."""
    read = {way(name) for name in names}
    return len(read) == len(set(names)) and all(name.startswith(prefix) for name in read)


def _likely(encoded: bool) -> tuple[_Way, ...]:
    return (unquote_plus, unquote, str) if encoded else (str, unquote, unquote_plus)
