"""How labelled pictures are shared out to train, validate and test: by the words that are given, or by data.split."""

import logging

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from labelmill.dataset.duplicates import connected, find_duplicates
from labelmill.dataset.labelled import Labelled
from labelmill.dataset.offenders import quoted, shown
from labelmill.dataset.split import SPLITS, split_by_hash, split_word
from labelmill.dataset.stratified import stratify
from labelmill.dataset.survey import survey
from labelmill.errors import DataError
from labelmill.spec import SplitWay, TrainSpec

__all__ = ["Sharing"]

logger = logging.getLogger(__name__)

Splits = NDArray[np.int8]


class Sharing:
    """The pictures of a spec, with what must stay together; `targets` [N, L] are those of its task."""

    def __init__(
        self, spec: TrainSpec, labelled: Labelled, labels: tuple[str, ...], targets: NDArray[np.uint8]
    ) -> None:
        self._spec, self._labelled, self._labels, self._targets = spec, labelled, labels, targets
        self._groups = _groups(spec, labelled)

    def splits(self, way: SplitWay) -> Splits:
        """Index into SPLITS for each picture, [N]. DataError: the words do not fit, or nothing could be learnt."""
        shares, labelled = self._spec.data.split, self._labelled
        if "split" not in labelled.columns:
            everything = np.arange(len(labelled))
            splits = self._shared_out(way, everything, (shares.train, shares.validation, shares.test))
        else:
            splits = _given(labelled)
            if not (splits == SPLITS.index("validation")).any():
                # Many sets come as train and test alone. What chooses the thresholds must not be what measures them.
                learning = np.flatnonzero(splits == SPLITS.index("train"))
                total = shares.train + shares.validation
                part = (shares.train / total, shares.validation / total, 0.0)
                splits[learning] = self._shared_out(way, learning, part)
                logger.info("%s: no picture has split validation; took a share of train by data.split", labelled.where)
            if self._groups is not None:
                _check_groups(labelled, self._groups, splits)
        self._check(splits)
        return splits

    def _shared_out(self, way: SplitWay, pictures: NDArray[np.int64], shares: tuple[float, float, float]) -> Splits:
        targets, seed = self._targets[pictures], self._spec.data.split.seed
        if way == "stratified":
            return stratify(targets, None if self._groups is None else self._groups[pictures], shares, seed)
        keys = _keys(self._labelled, self._groups)
        splits, moved = split_by_hash([keys[picture] for picture in pictures], targets, shares, seed)
        if moved.any():
            rare = [self._labels[column] for column in np.flatnonzero(targets[moved].any(axis=0))]
            logger.warning(
                "%s: so few pictures show %s that %d were moved where training cannot do without them, and may move "
                "again when there are more",
                self._labelled.where,
                quoted(rare),
                moved.sum(),
            )
        return splits

    def _check(self, splits: Splits) -> None:
        where, targets = self._labelled.where, self._targets
        counts = np.array([targets[splits == index].sum(axis=0, dtype=np.int64) for index in range(len(SPLITS))])
        sizes = np.bincount(splits, minlength=len(SPLITS))
        if not sizes[0] or not sizes[1]:
            raise DataError(
                f"{where}: {sizes[0]} pictures to train and {sizes[1]} to validate; each needs at least one. "
                "Add pictures (or groups of them), or change data.split."
            )
        missing = [
            f"{name!r} ({SPLITS[int(counts[:, column].argmax())]}, {counts[:, column].sum()} pictures)"
            for column, name in enumerate(self._labels)
            if not counts[0, column]
        ]
        if missing:
            raise DataError(
                f"{where}: labels without a training picture: {shown(missing)}. The network cannot learn them: add "
                "pictures of them, or remove the label."
            )
        if not counts[1].any():
            raise DataError(
                f"{where}: no validation picture has a label, so nothing can choose the epoch and the thresholds. "
                "Add pictures, or change data.split."
            )


def _given(labelled: Labelled) -> Splits:
    column = labelled.columns["split"]
    meant = {word: split_word(word) for word in pc.unique(column).to_pylist()}
    wrong = [word for word, split in meant.items() if split is None]
    if wrong:
        num_rows = pc.sum(pc.is_in(column, value_set=pa.array(wrong))).as_py()
        raise DataError(
            f"{labelled.where}: column 'split' holds {quoted(wrong)} in {num_rows} rows; expected one of "
            f"{', '.join(SPLITS)} in every row. Correct them, or remove the column: data.split then decides."
        )
    index = {word: SPLITS.index(split) for word, split in meant.items() if split}
    return np.array([index[word] for word in column.to_pylist()], dtype=np.int8)


def _groups(spec: TrainSpec, labelled: Labelled) -> NDArray[np.int64] | None:
    """A number for each picture: those with the same must stay in one split. None where every picture is free."""
    everyone = np.arange(len(labelled))
    links: list[NDArray[np.int64]] = []
    if "group" in labelled.columns:
        words = labelled.columns["group"]
        first = pc.index_in(words, value_set=words).to_numpy(zero_copy_only=False).astype(np.int64)
        unnamed = pc.equal(words, "").to_numpy(zero_copy_only=False)
        links.append(np.stack([everyone, np.where(unnamed, everyone, first)]))
    if spec.data.duplicates == "together":
        if "split" in labelled.columns:
            raise DataError(
                f"{labelled.where}: the splits are given, and data.duplicates: together would have to move pictures. "
                "Remove the splits from it, or set data.duplicates: report."
            )
        links.append(find_duplicates(survey(labelled.uris, labelled.etags, max_pixels=spec.max_pixels)).pairs)
    return connected(len(labelled), *np.concatenate(links, axis=1)) if links else None


def _keys(labelled: Labelled, groups: NDArray[np.int64] | None) -> list[str]:
    """What is hashed for each picture: the name of its group, or else its address below the root of the pictures, so
    that a store that moves takes its splits along.

    Twins that stay together have the key of a group among them, or else of the one with the shortest address, of equal
    ones the first in the alphabet: as names grow with dates, counters and words like copy, a new twin joins those that
    are there. One with a shorter name takes them along to where it belongs.
    """
    keys = [f"uri {address}" for address in labelled.addresses]
    if "group" in labelled.columns:
        names = labelled.columns["group"].to_pylist()
        keys = [f"group {name}" if name else key for name, key in zip(names, keys, strict=True)]
    if groups is None:
        return keys
    first: dict[int, tuple[bool, int, str]] = {}
    for group, key in zip(groups.tolist(), keys, strict=True):
        rank = (key.startswith("uri "), len(key), key)
        first[group] = min(rank, first.get(group, rank))
    return [first[group][-1] for group in groups.tolist()]


def _check_groups(labelled: Labelled, groups: NDArray[np.int64], splits: Splits) -> None:
    straddling = np.flatnonzero(splits != splits[groups])
    if len(straddling):
        words = pc.unique(labelled.columns["group"].take(pa.array(straddling))).to_pylist()
        raise DataError(
            f"{labelled.where}: groups {quoted(words)} have pictures in more than one split. "
            "Correct the column 'split' or 'group', or remove one of them."
        )
