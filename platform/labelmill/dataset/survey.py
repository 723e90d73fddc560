"""One look at every picture: can it be read, which are its bytes, and what does it look like?

What a look saw is kept in this machine's cache folder, by address and version, so the next run over the same pictures
looks at the new ones alone, and so does one that was cut short.
"""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from labelmill.allowance import cores_here
from labelmill.dataset.sights import SIGHT, Item, Sights, remembered_sights
from labelmill.errors import ImageError, StorageError, UnavailableError
from labelmill.images.likeness import colours, perceptual_hashes, thumbnail
from labelmill.storage import read_pictures

__all__ = ["Survey", "survey"]

logger = logging.getLogger(__name__)

_NUM_AT_ONCE = 64


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
    with remembered_sights() as known:
        return _looked_at(items, known, max_pixels)


def _looked_at(items: Sequence[Item], known: Sights, max_pixels: int) -> Survey:
    sights, readable = np.zeros(len(items), dtype=SIGHT), np.zeros(len(items), dtype=bool)
    unreadable: dict[str, str] = {}
    for index, sight in known.of(items):
        sights[index], readable[index] = sight, True
    new = np.flatnonzero(~readable).tolist()
    if new:
        logger.info("looking at %d of %d pictures, the others are known", len(new), len(items))
    for index, found in _looks(items, new, max_pixels):
        if isinstance(found, str):
            unreadable[items[index][0]] = found
        else:
            sights[index], readable[index] = found, True
            known.keep(items[index], found)
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
