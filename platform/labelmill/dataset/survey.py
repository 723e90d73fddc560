"""One look at every picture: can it be read, which are its bytes, and what does it look like?

What a look saw is kept in this machine's cache folder, by address and version, so the next run over the same pictures
looks at the new ones alone, and so does one that was cut short.
"""

import hashlib
import logging
import sqlite3
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from labelmill.cores import cores_here
from labelmill.errors import ImageError, StorageError, UnavailableError
from labelmill.images.likeness import COLOURS_PX, colours, perceptual_hashes, thumbnail
from labelmill.model.bundle import cache_folder
from labelmill.storage import read_pictures

__all__ = ["SIGHT", "Survey", "survey"]

logger = logging.getLogger(__name__)

# What is remembered of a picture: blake2b of its bytes, and what `images.likeness` says of it.
SIGHT = np.dtype([("bytes", "<u8"), ("hash", "<u8"), ("colours", "u1", COLOURS_PX * COLOURS_PX * 3)])

Item = tuple[str, str]  # uri, etag

_NUM_AT_ONCE = 64
_NUM_LOOKED_UP = 500  # SQLite takes so many question marks in every version


@dataclass(frozen=True)
class Survey:
    """What was seen, SIGHT [N], of those pictures that are `readable` [N]; and uri -> reason of the others."""

    sights: NDArray[np.void]
    readable: NDArray[np.bool_]
    unreadable: dict[str, str]


def survey(uris: pa.Array, etags: pa.Array, *, max_pixels: int) -> Survey:
    """Look at every picture once, or remember it. UnavailableError: the store is down. StorageError: nothing can be
    kept in the cache folder.
    """
    items = list(zip(uris.to_pylist(), etags.to_pylist(), strict=True))
    path = cache_folder() / "sights-1.sqlite"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(_Memory(path)) as memory:
            return _looked_at(items, memory, max_pixels)
    except (OSError, sqlite3.Error) as exc:
        raise StorageError(
            f"{path}: expected to keep what pictures look like here, and {exc}. Set LABELMILL_CACHE to a folder that "
            "can be written, or set data.duplicates: ignore."
        ) from exc


def _looked_at(items: Sequence[Item], memory: "_Memory", max_pixels: int) -> Survey:
    sights, readable = np.zeros(len(items), dtype=SIGHT), np.zeros(len(items), dtype=bool)
    unreadable: dict[str, str] = {}
    for index, sight in memory.of(items):
        sights[index], readable[index] = sight, True
    new = np.flatnonzero(~readable).tolist()
    if new:
        logger.info("looking at %d of %d pictures, the others are known", len(new), len(items))
    for index, found in _looks(items, new, max_pixels):
        if isinstance(found, str):
            unreadable[items[index][0]] = found
        else:
            sights[index], readable[index] = found, True
            memory.keep(items[index], found)
    return Survey(sights, readable, unreadable)


def _looks(items: Sequence[Item], wanted: list[int], max_pixels: int) -> Iterator[tuple[int, np.void | str]]:
    """What each wanted picture shows, or why it cannot be read."""

    def look(indices: list[int]) -> list[tuple[int, np.void | str]]:
        reasons: dict[int, str] = {}
        seen: dict[int, tuple[int, NDArray[np.uint8]]] = {}
        for index, data in zip(indices, read_pictures([items[index] for index in indices]), strict=True):
            if isinstance(data, UnavailableError):
                raise data
            if isinstance(data, StorageError):
                reasons[index] = str(data)
                continue
            try:
                seen[index] = _number(data), thumbnail(data, max_pixels=max_pixels)
            except ImageError as exc:
                reasons[index] = str(exc)
        return [*reasons.items(), *zip(seen, _sights(list(seen.values())), strict=True)]

    chunks = [wanted[start : start + _NUM_AT_ONCE] for start in range(0, len(wanted), _NUM_AT_ONCE)]
    with ThreadPoolExecutor(cores_here(), thread_name_prefix="survey") as pool:
        for looked in pool.map(look, chunks):
            yield from looked


def _sights(seen: list[tuple[int, NDArray[np.uint8]]]) -> NDArray[np.void]:
    sights = np.zeros(len(seen), dtype=SIGHT)
    if seen:
        numbers, thumbnails = zip(*seen, strict=True)
        sights["bytes"], sights["hash"] = numbers, perceptual_hashes(np.stack(thumbnails))
        sights["colours"] = colours(np.stack(thumbnails))
    return sights


def _number(data: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "little")


class _Memory:
    """Sights by address and version, in a SQLite file that several runs may share."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, timeout=60)
        self._connection.execute("CREATE TABLE IF NOT EXISTS sights (key INTEGER PRIMARY KEY, sight BLOB NOT NULL)")
        self._new: list[tuple[int, bytes]] = []

    def of(self, items: Sequence[Item]) -> Iterator[tuple[int, np.void]]:
        """(place, sight) of the items that are known."""
        for start in range(0, len(items), _NUM_LOOKED_UP):
            keys = {_key(item): index for index, item in enumerate(items[start : start + _NUM_LOOKED_UP], start)}
            marks = ",".join("?" * len(keys))
            found = self._connection.execute(f"SELECT key, sight FROM sights WHERE key IN ({marks})", list(keys))
            for key, sight in found:
                yield keys[key], np.frombuffer(sight, SIGHT)[0]

    def keep(self, item: Item, sight: np.void) -> None:
        self._new.append((_key(item), sight.tobytes()))
        if len(self._new) >= _NUM_LOOKED_UP:
            self._write()

    def close(self) -> None:
        self._write()
        self._connection.close()

    def _write(self) -> None:
        with self._connection:
            self._connection.executemany("INSERT OR REPLACE INTO sights VALUES (?, ?)", self._new)
        self._new.clear()


def _key(item: Item) -> int:
    return int.from_bytes(hashlib.blake2b("\0".join(item).encode(), digest_size=8).digest(), "little", signed=True)
