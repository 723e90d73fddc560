"""The way `stratified`: all pictures of a set are shared out together, so that every label keeps its shares.

One picture more may move any other: `dataset.split` has the way that moves none.
"""

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["assign_splits", "stratify"]


def stratify(
    targets: NDArray[np.uint8], groups: NDArray[np.int64] | None, shares: tuple[float, float, float], seed: int
) -> NDArray[np.int8]:
    """Index into SPLITS for each picture, [N], so that every label is shared out as the pictures are.

    `targets` [N, L] are 0 or 1; pictures of one group, numbers [N], come into one split. One label a picture and no
    groups is plain stratification; all else is iterative: Sechidis, Tsoumakas, Vlahavas, On the Stratification of
    Multi-Label Data, 2011, algorithm 1, where what is shared out is a group and not a picture.
    """
    per_picture = targets.sum(axis=1, dtype=np.int64)
    if groups is None and (per_picture <= 1).all():
        return assign_splits(np.where(per_picture, targets.argmax(axis=1), targets.shape[1]), shares, seed)
    members = np.arange(len(targets)) if groups is None else np.unique(groups, return_inverse=True)[1]
    return _Sharing(targets, members, shares, np.random.default_rng(seed)).splits()[members]


def assign_splits(strata: NDArray[np.int64], shares: tuple[float, float, float], seed: int) -> NDArray[np.int8]:
    """Index into SPLITS for each picture, [N]: within every stratum in these shares, the same for the same seed.

    A stratum gives at least one picture to each split with a share, as long as it has that many: to training first,
    then validation, then test.
    """
    rng = np.random.default_rng(seed)
    splits = np.zeros(len(strata), dtype=np.int8)
    by_stratum = np.argsort(strata, kind="stable")
    starts = np.flatnonzero(np.diff(strata[by_stratum], prepend=-1))
    for members in np.split(by_stratum, starts[1:]):
        counts = _counts(len(members), shares, rng)
        splits[rng.permutation(members)] = np.repeat(np.arange(3, dtype=np.int8), counts)
    return splits


class _Sharing:
    """Groups of pictures, handed to the split that wants their rarest label most.

    Pictures without a label count as carrying one of their own. All pairs (group, label) lie sorted by group; lists,
    not arrays, because the loop looks at single numbers.
    """

    def __init__(
        self,
        targets: NDArray[np.uint8],
        members: NDArray[np.int64],
        shares: tuple[float, float, float],
        rng: np.random.Generator,
    ) -> None:
        num_labels = targets.shape[1] + 1
        rows, codes = np.nonzero(targets)
        bare = np.flatnonzero(~targets.any(axis=1))
        rows, codes = np.concatenate([rows, bare]), np.concatenate([codes, np.full(len(bare), num_labels - 1)])
        pairs, counts = np.unique(members[rows] * num_labels + codes, return_counts=True)
        group_of, label_of = np.divmod(pairs, num_labels)
        sizes = np.bincount(members)
        left = np.bincount(codes, minlength=num_labels)
        self._starts = np.searchsorted(group_of, np.arange(len(sizes) + 1)).tolist()
        self._labels, self._counts, self._sizes = label_of.tolist(), counts.tolist(), sizes.tolist()
        self._left: list[int] = left.tolist()
        self._wanted = [_counts(count, shares, rng).tolist() for count in self._left]
        self._room = [share * len(targets) for share in shares]
        self._allowed = [split for split, share in enumerate(shares) if share > 0]
        self._empty, self._num_free = set(self._allowed), len(sizes)
        # The groups that carry each label, those with most pictures of it first: small ones then even out the rest.
        order = np.lexsort((rng.random(len(pairs)), -counts, label_of))
        self._carriers = np.split(group_of[order], np.cumsum(np.bincount(label_of, minlength=num_labels))[:-1])
        self._splits = [-1] * len(sizes)

    def splits(self) -> NDArray[np.int8]:
        """Index into SPLITS for each group."""
        while any(self._left):
            rarest = min(range(len(self._left)), key=lambda label: self._left[label] or math.inf)
            for group in self._carriers[rarest].tolist():
                if self._splits[group] < 0:
                    self._give(group, rarest)
        return np.array(self._splits, dtype=np.int8)

    def _give(self, group: int, label: int) -> None:
        # A few large groups: none of the last ones may leave a split without any.
        choice = self._empty if len(self._empty) >= self._num_free else self._allowed
        split = max(choice, key=lambda split: (self._wanted[label][split], self._room[split], -split))
        self._splits[group] = split
        self._empty.discard(split)
        self._num_free -= 1
        self._room[split] -= self._sizes[group]
        for at in range(self._starts[group], self._starts[group + 1]):
            self._wanted[self._labels[at]][split] -= self._counts[at]
            self._left[self._labels[at]] -= self._counts[at]


def _counts(size: int, shares: tuple[float, float, float], rng: np.random.Generator) -> NDArray[np.int64]:
    exact = np.array(shares) * size
    counts = np.floor(exact + 1e-9).astype(np.int64)
    # What is left over goes to the largest remainders, by a draw among equals, or small strata would all lean one way.
    remainders = exact - counts + rng.uniform(0, 1e-6, 3) - np.where(np.array(shares) > 0, 0, 2)
    counts[np.argsort(-remainders)[: size - counts.sum()]] += 1
    wanted = [split for split in range(3) if shares[split] > 0][:size]
    for split in wanted:
        if counts[split] == 0:
            counts[np.argmax(counts)] -= 1
            counts[split] = 1
    return counts
