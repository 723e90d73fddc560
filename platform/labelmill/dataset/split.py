"""Which picture trains, which one validates, which one tests."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["SPLITS", "assign_splits", "rarest_labels"]

SPLITS = ("train", "validation", "test")


def rarest_labels(
    rows: NDArray[np.int64], codes: NDArray[np.int64], num_rows: int, num_labels: int
) -> NDArray[np.int64]:
    """The label of each picture that fewest pictures carry, [num_rows]; `num_labels` where a picture has none.

    `rows` and `codes` are the pairs (picture, label). With one label a picture this is that label. Splitting by the
    rarest label first is the idea of iterative stratification (Sechidis et al., 2011) without its iteration: a rare
    label reaches every split, and common ones are balanced by their number.
    """
    counts = np.bincount(codes, minlength=num_labels)
    rarest = np.full(num_rows, num_labels, dtype=np.int64)
    commonest_first = np.argsort(-counts[codes], kind="stable")
    rarest[rows[commonest_first]] = codes[commonest_first]  # of several writes to one row the last one stays
    return rarest


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
