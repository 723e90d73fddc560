"""Pictures that are the same, byte for byte or to the eye, found without comparing each with every other."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
from numpy.typing import NDArray

from labelmill.dataset.survey import Survey

__all__ = ["Duplicates", "connected", "find_duplicates", "near_pairs"]

# Looked at by eye on 12,000 pictures of CIFAR-10: all 21 pairs within both bounds show one thing, and beyond them begin
# planes in one blue sky.
MAX_BITS = 8  # of 63
MAX_COLOUR = 15.0  # levels of 255, in the mean over all parts

Pairs = NDArray[np.int64]  # [2, M]: places of two pictures each


@dataclass(frozen=True)
class Duplicates:
    """Links between pictures that are alike: as many as it takes to connect all of them, not one for every two."""

    exact: Pairs  # the same bytes
    near: Pairs  # like to the eye

    @property
    def pairs(self) -> Pairs:
        return np.concatenate([self.exact, self.near], axis=1)


def find_duplicates(seen: Survey) -> Duplicates:
    """What a survey saw more than once; places are those of its pictures. What cannot be read is like nothing."""
    there = np.flatnonzero(seen.readable)
    sights = seen.sights[there]
    exact, originals = _repeats(sights["bytes"])
    rough = np.concatenate([_as_bytes(sights["hash"]), sights["colours"] >> 3], axis=1)[originals]
    same, kept = _repeats(np.ascontiguousarray(rough).view(np.dtype((np.void, rough.shape[1])))[:, 0])
    originals, same = originals[kept], originals[same]
    colours = sights["colours"][originals].astype(np.int16)
    near = [same]
    for pairs in near_pairs(sights["hash"][originals], MAX_BITS):
        differences = np.abs(colours[pairs[0]] - colours[pairs[1]]).mean(axis=1)
        near.append(originals[pairs[:, differences <= MAX_COLOUR]])
    return Duplicates(there[exact], there[np.unique(np.concatenate(near, axis=1), axis=1)])


def near_pairs(hashes: NDArray[np.uint64], max_bits: int) -> Iterator[Pairs]:
    """All pairs whose hashes differ in at most `max_bits` bits, in portions; a pair may come several times.

    Cut into `max_bits + k` blocks, two such hashes agree in at least k of them: so for each choice of k blocks only
    those are compared that agree there (Manku, Jain, Das Sarma, Detecting Near-Duplicates for Web Crawling, 2007). k
    grows with the number of hashes, so that only some eight agree by chance: fewer would take more choices to sort by.
    """
    num_bits = np.log2(len(hashes) + 1) - 3
    num_kept = next(k for k in range(1, 64) if 64 * k >= (max_bits + k) * num_bits)
    edges = np.linspace(0, 64, max_bits + num_kept + 1).round().astype(int).tolist()
    blocks = [(1 << high) - (1 << low) for low, high in pairwise(edges)]
    for kept in combinations(blocks, num_kept):
        yield from _agreeing(hashes, np.uint64(sum(kept)), max_bits)


def connected(num_pictures: int, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each picture the first one of those that links connect it with, [num_pictures]."""
    roots = np.arange(num_pictures)
    while (roots[left] != roots[right]).any():
        np.minimum.at(roots, np.maximum(roots[left], roots[right]), np.minimum(roots[left], roots[right]))
        while (roots != roots[roots]).any():
            roots = roots[roots]
    return roots


def _repeats(values: NDArray[np.generic]) -> tuple[Pairs, NDArray[np.int64]]:
    """Links from each value that came before to its first place; and the first places."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    firsts = first[inverse]
    again = np.flatnonzero(firsts != np.arange(len(values)))
    return np.stack([firsts[again], again]), np.sort(first)


def _agreeing(hashes: NDArray[np.uint64], mask: np.uint64, max_bits: int) -> Iterator[Pairs]:
    order = np.argsort(hashes & mask, kind="stable")
    keys, ordered = (hashes & mask)[order], hashes[order]
    at, distance = np.arange(len(keys)), 1
    # Neighbours, then those two apart, and so on while their keys agree.
    while len(at := at[: np.searchsorted(at, len(keys) - distance)]):
        at = at[keys[at] == keys[at + distance]]
        near = at[np.bitwise_count(ordered[at] ^ ordered[at + distance]) <= max_bits]
        yield np.stack([order[near], order[near + distance]])
        distance += 1


def _as_bytes(hashes: NDArray[np.uint64]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(hashes).view(np.uint8).reshape(-1, 8)
