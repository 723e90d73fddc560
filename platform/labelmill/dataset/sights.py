"""What pictures look like, remembered in a SQLite file of the cache folder that several runs may share.

Each row has a digest of its own, and one that differs counts as unknown. A file that is no sound database any more is
begun anew. What was not asked for longest goes when there is too much.
"""

import hashlib
import logging
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from labelmill.images.likeness import COLOURS_PX
from labelmill.model.cache import cache_explained, cache_folder

__all__ = ["SIGHT", "Item", "Sights", "remembered_sights"]

logger = logging.getLogger(__name__)

# What is remembered of a picture: blake2b of its bytes, and what `images.likeness` says of it.
SIGHT = np.dtype([("bytes", "<u8"), ("hash", "<u8"), ("colours", "u1", COLOURS_PX * COLOURS_PX * 3)])

Item = tuple[str, str]  # uri, etag

_FILE_NAME, _EARLIER_NAME = "sights-2.sqlite", "sights-1.sqlite"
_TABLE = "CREATE TABLE IF NOT EXISTS sights (key INTEGER PRIMARY KEY, day INTEGER NOT NULL, sight BLOB NOT NULL)"
_OLDEST = "SELECT key FROM sights ORDER BY day LIMIT (SELECT count(*) / 4 FROM sights)"
_DAMAGED = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_MOST_BYTES = 2 * 2**30  # some 20 million pictures
_DIGEST_BYTES = 8
_NUM_AT_ONCE = 500  # SQLite takes so many question marks in every version
_DAY_S = 86_400


@contextmanager
def remembered_sights() -> Iterator["Sights"]:
    """What this machine knows, for the time of the block. StorageError: it cannot be kept in the cache folder."""
    path = cache_folder() / _FILE_NAME
    with cache_explained(sqlite3.Error):
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(OSError):
            path.with_name(_EARLIER_NAME).unlink(missing_ok=True)
        with closing(Sights(path)) as sights:
            yield sights


class Sights:
    """Sights by address and version."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._today = int(time.time() // _DAY_S)
        self._new: list[tuple[int, int, bytes]] = []
        self._asked: list[tuple[int, int]] = []
        self._connection = sqlite3.connect(path, timeout=60)
        self._rows(_TABLE)

    def of(self, items: Sequence[Item]) -> Iterator[tuple[int, np.void]]:
        """(place, sight) of the items that are known."""
        for start in range(0, len(items), _NUM_AT_ONCE):
            keys = {_key(item): index for index, item in enumerate(items[start : start + _NUM_AT_ONCE], start)}
            marks = ",".join("?" * len(keys))
            for key, day, row in self._rows(f"SELECT key, day, sight FROM sights WHERE key IN ({marks})", list(keys)):
                data = row[:-_DIGEST_BYTES] if isinstance(row, bytes) else b""
                if _row(key, data) == row:
                    yield keys[key], np.frombuffer(data, SIGHT)[0]
                if day != self._today:
                    self._asked.append((self._today, key))

    def keep(self, item: Item, sight: np.void) -> None:
        key = _key(item)
        self._new.append((key, self._today, _row(key, sight.tobytes())))
        if len(self._new) >= _NUM_AT_ONCE:
            self._write()

    def close(self) -> None:
        self._write()
        with suppress(sqlite3.OperationalError):  # what is only read need not be writable
            self._change("UPDATE sights SET day = ? WHERE key = ?", self._asked)
            if self._size_bytes() > _MOST_BYTES:
                self._change(f"DELETE FROM sights WHERE key IN ({_OLDEST})", [()])
        self._connection.close()

    def _write(self) -> None:
        self._change("INSERT OR REPLACE INTO sights VALUES (?, ?, ?)", self._new)
        self._new.clear()

    def _size_bytes(self) -> int:
        pages, free, page_bytes = (
            self._rows(f"PRAGMA {name}")[0][0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * page_bytes)

    def _rows(self, text: str, values: Sequence[int] = ()) -> list[Any]:
        try:
            return self._connection.execute(text, values).fetchall()
        except sqlite3.DatabaseError as exc:
            self._begin_anew(exc)
            return self._connection.execute(text, values).fetchall()

    def _change(self, text: str, rows: Iterable[tuple[Any, ...]]) -> None:
        try:
            with self._connection:
                self._connection.executemany(text, rows)
        except sqlite3.DatabaseError as exc:
            self._begin_anew(exc)
            with self._connection:
                self._connection.executemany(text, rows)

    def _begin_anew(self, exc: sqlite3.DatabaseError) -> None:
        """Raises what is no damage."""
        if getattr(exc, "sqlite_errorcode", 0) & 0xFF not in _DAMAGED:
            raise exc
        logger.warning("%s is damaged, and begun anew: %s", self._path, exc)
        self._connection.close()
        for suffix in ("-journal", ""):
            Path(f"{self._path}{suffix}").unlink(missing_ok=True)
        self._connection = sqlite3.connect(self._path, timeout=60)
        self._connection.execute(_TABLE)


def _row(key: int, sight: bytes) -> bytes:
    """A sight with its digest."""
    salt = key.to_bytes(8, "little", signed=True)
    return sight + hashlib.blake2b(sight, digest_size=_DIGEST_BYTES, key=salt).digest()


def _key(item: Item) -> int:
    return int.from_bytes(hashlib.blake2b("\0".join(item).encode(), digest_size=8).digest(), "little", signed=True)
