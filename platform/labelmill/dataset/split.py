"""Which picture trains, which one validates, which one tests: the way `hash`, by which growth moves no picture."""

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["SPLITS", "split_by_hash", "split_word"]

SPLITS = ("train", "validation", "test")
_TRAIN, _VALIDATION, _TEST = range(3)
_OTHER_WORDS = {"val": "validation", "valid": "validation"}

Splits = NDArray[np.int8]


def split_word(word: str) -> str | None:
    """The split that a column or a folder means, in upper or lower case; None where it means none."""
    word = _OTHER_WORDS.get(word.lower(), word.lower())
    return word if word in SPLITS else None


def split_by_hash(
    keys: Sequence[str], targets: NDArray[np.uint8], shares: tuple[float, float, float], seed: int
) -> tuple[Splits, NDArray[np.bool_]]:
    """Index into SPLITS for each picture, [N], by its key and the seed alone; and which pictures had to be moved, [N].

    A key's hash is a number from 0 to 1: the lowest ones test, the highest validate, those between train. So pictures
    with one key stay together, more or fewer pictures or labels move none of the others, and another share moves
    pictures between training and that split alone. The price is that shares hold as chance keeps them: of n keys (or
    those of one label) a split with share s gets n s, in 19 of 20 sets give or take 2 sqrt(n s (1 - s)): of 1,000 keys
    100 +- 19 at a share of 0.1, of 100 keys 10 +- 6, of 10 keys none in one set of three. No rule can do better that
    looks at a picture alone, and one that looks at others moves pictures when those change.

    Some sets could not be trained on then, and there the keys nearest to where they are needed are moved: one to
    training for each label that has no training picture (one key of five, with shares of 0.8, 0.1 and 0.1, where a
    label has one key; one of 3,000 where it has five), and one to validation and to testing where no picture with a
    label is. Only these few may move again as the set grows.
    """
    numbers = np.array([_number(key, seed) for key in keys])
    _, validation, test = shares
    splits = np.where(numbers < test, _TEST, np.where(numbers >= 1 - validation, _VALIDATION, _TRAIN)).astype(np.int8)
    needs = _Needs(numbers, targets, splits.copy())
    needs.train_each_label(middle=(test + 1 - validation) / 2)
    needs.fill(_VALIDATION, numbers - 1)
    if test > 0:
        needs.fill(_TEST, numbers)
    return needs.splits, needs.splits != splits


class _Needs:
    """Moves keys to where a training run cannot do without one. Pictures with one number [N] have one key."""

    def __init__(self, numbers: NDArray[np.float64], targets: NDArray[np.uint8], splits: Splits) -> None:
        self._numbers, self._targets, self.splits = numbers, targets, splits

    def train_each_label(self, middle: float) -> None:
        distances = np.abs(self._numbers - middle)
        for label in np.flatnonzero(~self._targets[self.splits == _TRAIN].any(axis=0)):
            carriers = np.flatnonzero(self._targets[:, label])
            if len(carriers) and not (self.splits[carriers] == _TRAIN).any():
                self._move(carriers[distances[carriers].argmin()], _TRAIN)

    def fill(self, split: int, distances: NDArray[np.float64]) -> None:
        """Give the split its nearest key with a label, unless it has one; validation comes before test, and none takes
        the last training picture of a label."""
        labelled = self._targets.sum(axis=1) > 0
        if (labelled & (self.splits == split)).any():
            return
        free = np.flatnonzero(labelled & (self.splits != _VALIDATION))
        in_train = self._in_train(labelled)
        for picture in free[np.abs(distances[free]).argsort(kind="stable")]:
            own = self._in_train(self._numbers == self._numbers[picture])
            if (in_train - own)[own > 0].all():
                self._move(picture, split)
                return

    def _in_train(self, pictures: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Of each label, how many of these are training pictures."""
        found: NDArray[np.int64] = self._targets[pictures & (self.splits == _TRAIN)].sum(axis=0, dtype=np.int64)
        return found

    def _move(self, picture: np.int64, split: int) -> None:
        self.splits[self._numbers == self._numbers[picture]] = split


def _number(key: str, seed: int) -> float:
    digest = hashlib.blake2b(f"{seed}\0{key}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64
