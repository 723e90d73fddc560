"""The keys of a label table's rows, sorted, in which a listing is looked up."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ARCHIVED", "DELETED", "DONE", "FILES", "HERE", "KEY", "Found", "Index", "by_file"]

FILES = 256
KEY = np.dtype(
    [("uri_hash", "<u8"), ("etag_hash", "<u8"), ("run", "<u4"), ("name", "u1"), ("bundle", "u1"), ("state", "u1")]
)
# What the state of a key tells of its row: it is final; it says `deleted`; it says `archived`; its uri is one that the
# listing should name. One that does none of it only tells that there was the picture.
DONE, DELETED, ARCHIVED, HERE = 1, 2, 4, 8
_BEFORE = 16  # final, and of before the picture was deleted
_UNSEEN, _SEEN, _LACKED, _NOT_EXPECTED = range(4)


@dataclass(frozen=True)
class Found:
    """Of each picture that was looked up: the models that lack a row, as bits, and those of them that had one before
    it was deleted (`back`); and the place of its uri among those of its file, -1 where it is not known."""

    lacking: NDArray[Any]
    back: NDArray[Any]
    place: NDArray[np.int64]

    @property
    def known(self) -> NDArray[np.bool_]:
        return self.place >= 0


class Index:
    """The sorted keys of some of the files: what of the listing they hold, and what they hold that was not listed."""

    def __init__(self, files: Iterable[tuple[int, NDArray[Any]]], bits: NDArray[Any], everything: int) -> None:
        """The keys of each file by its number, which are given up one by one; `bits` of the models whose row each
        bundle's is, and `everything` has all of them."""
        self._files = {number: _Sorted(keys, bits) for number, keys in files}
        self._everything = bits.dtype.type(everything)
        self.num_expected = sum(file.num_unseen for file in self._files.values())

    def look_up(
        self, uri_hashes: NDArray[np.uint64], etag_hashes: NDArray[np.uint64], archived: NDArray[np.bool_]
    ) -> Found:
        """Of pictures that lie in an archive (`archived`), a row that says so counts."""
        count = len(uri_hashes)
        lacking, back = np.full(count, self._everything), np.zeros(count, self._everything.dtype)
        place = np.full(count, -1, np.int64)
        order, pieces = by_file(uri_hashes)
        for number, piece in pieces:
            here = order[piece]
            place[here], done, special = self._files[number].look_up(uri_hashes[here], etag_hashes[here])
            lacking[here] = self._everything & ~done
            if special:
                before, shelved = special
                lacking[here] &= ~np.where(archived[here], shelved, shelved.dtype.type(0))
                back[here] = lacking[here] & before
        return Found(lacking, back, place)

    def note(self, uri_hashes: NDArray[np.uint64], found: Found) -> NDArray[np.bool_]:
        """Note what was listed; whether each picture, or one of its uri that was listed before or beside it, lacks a
        row: of a uri that is listed twice one counts, and it may be the one that lacks none."""
        is_open: NDArray[np.bool_] = found.lacking != 0
        order, pieces = by_file(uri_hashes)
        for number, piece in pieces:
            here = order[piece]
            here = here[found.place[here] >= 0]
            is_open[here] = self._files[number].note(found.place[here], is_open[here])
        return is_open

    @property
    def num_listed(self) -> int:
        """How many known uris were looked up, each counted once."""
        return sum(int(np.isin(file.seen, (_SEEN, _LACKED)).sum()) for file in self._files.values())

    def not_listed(self) -> NDArray[np.uint64]:
        """The hashes of the uris that were expected in the listing and never looked up."""
        return np.concatenate([file.uri_hash[file.seen == _UNSEEN] for file in self._files.values()])


class _Sorted:
    """The keys of one file, by uri; `seen` counts at the first key of each uri."""

    def __init__(self, keys: NDArray[Any], bits: NDArray[Any]) -> None:
        keys = _without_deleted(keys)
        counts = (keys["state"] & (DONE | ARCHIVED)) != 0
        is_before = (keys["state"] & _BEFORE) != 0
        is_plain = bool(counts.all() and not is_before.any())
        order = np.argsort(keys["uri_hash"]) if is_plain else np.lexsort((~counts, is_before, keys["uri_hash"]))
        keys, counts = keys[order], counts[order]
        first = _starts(keys["uri_hash"])
        keep = counts | first  # a row that only tells of its picture says nothing beside one that does more
        keys, counts, first = keys[keep], counts[keep], first[keep]
        self.uri_hash, self.etag_hash = keys["uri_hash"].copy(), keys["etag_hash"].copy()
        self._bits = np.where(counts, bits[keys["bundle"]], bits.dtype.type(0))
        is_special = (keys["state"] & (_BEFORE | ARCHIVED)).any()
        self._state = keys["state"].copy() if is_special else None
        expected = first & ((keys["state"] & (HERE | _BEFORE)) == HERE)
        self.seen = np.where(expected, np.uint8(_UNSEEN), np.uint8(_NOT_EXPECTED))
        self.num_unseen = int(expected.sum())

    def look_up(
        self, uri_hashes: NDArray[np.uint64], etag_hashes: NDArray[np.uint64]
    ) -> tuple[NDArray[np.int64], NDArray[Any], tuple[NDArray[Any], NDArray[Any]] | None]:
        """The first key of each uri, -1 where there is none; and of its models, as bits, which have a final row of this
        etag; and which had one before a deletion, and which have one that says `archived`, if the file has such."""
        first = np.full(len(uri_hashes), -1, np.int64)
        done = np.zeros(len(uri_hashes), self._bits.dtype)
        before, shelved = (np.zeros_like(done) for _ in range(2)) if self._state is not None else (done, done)
        active = np.argsort(uri_hashes)  # looked up in order, neighbours lie in the same cache lines
        at = np.searchsorted(self.uri_hash, uri_hashes[active])
        active, at = self._same_uri(active, at, uri_hashes)
        first[active] = at
        while active.size:
            same = self.etag_hash[at] == etag_hashes[active]
            bits = np.where(same, self._bits[at], self._bits.dtype.type(0))
            if self._state is None:
                done[active] |= bits
            else:
                state = self._state[at]
                for found, flags in ((done, DONE), (before, DONE | _BEFORE), (shelved, ARCHIVED)):
                    found[active] |= np.where((state & (DONE | _BEFORE | ARCHIVED)) == flags, bits, bits.dtype.type(0))
            active, at = self._same_uri(active, at + 1, uri_hashes)
        return first, done, (before, shelved) if self._state is not None else None

    def note(self, first: NDArray[np.int64], lacks: NDArray[np.bool_]) -> NDArray[np.bool_]:
        self.seen[first] = np.where(self.seen[first] == _LACKED, np.uint8(_LACKED), np.uint8(_SEEN))
        self.seen[first[lacks]] = _LACKED
        is_open: NDArray[np.bool_] = self.seen[first] == _LACKED
        return is_open

    def _same_uri(
        self, active: NDArray[np.intp], at: NDArray[np.intp], uri_hashes: NDArray[np.uint64]
    ) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Those whose key at `at` is still one of their own uri."""
        inside = at < len(self.uri_hash)
        active, at = active[inside], at[inside]
        same = self.uri_hash[at] == uri_hashes[active]
        return active[same], at[same]


def by_file(uri_hashes: NDArray[np.uint64]) -> tuple[NDArray[np.intp], list[tuple[int, slice]]]:
    """An order in which the hashes of one file stand together, and where each file's stand in it."""
    numbers = (uri_hashes >> np.uint64(56)).astype(np.uint8)
    ends = np.cumsum(np.bincount(numbers, minlength=FILES)).tolist()
    starts = [0, *ends[:-1]]
    pieces = [(n, slice(start, end)) for n, (start, end) in enumerate(zip(starts, ends, strict=True)) if end > start]
    return np.argsort(numbers, kind="stable"), pieces


def _starts(values: NDArray[Any]) -> NDArray[np.bool_]:
    """True where a sorted array's value is not the one before it."""
    return np.concatenate([[True], values[1:] != values[:-1]]) if len(values) else np.zeros(0, np.bool_)


def _without_deleted(keys: NDArray[Any]) -> NDArray[Any]:
    """Without the rows that say `deleted`; of all that a picture and model had before such a row, the final ones stay,
    marked: they count again when it comes back as it was."""
    deleted = (keys["state"] & DELETED) != 0
    if not deleted.any():
        return keys
    order = np.lexsort((keys["run"], keys["name"], keys["uri_hash"]))
    keys, deleted = keys[order], deleted[order]
    starts = _starts(keys["uri_hash"]) | _starts(keys["name"])
    group = np.cumsum(starts) - 1
    last = np.full(group[-1] + 1, -1)
    np.maximum.at(last, group[deleted], np.flatnonzero(deleted))
    is_newer = np.arange(len(keys)) > last[group]
    was_done = ~is_newer & ((keys["state"] & DONE) != 0)
    keys["state"][was_done] |= _BEFORE
    kept: NDArray[Any] = keys[is_newer | was_done]
    return kept
