"""The training set: pictures that are there, with labels that fit the task, each in one split."""

import hashlib
import logging
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from labelmill.dataset.duplicates import connected, find_duplicates
from labelmill.dataset.examples import Examples
from labelmill.dataset.labelled import Labelled, load_labelled
from labelmill.dataset.offenders import quoted, shown
from labelmill.dataset.split import SPLITS, split_word, stratify
from labelmill.dataset.survey import survey
from labelmill.errors import DataError
from labelmill.spec import ExtraData, TrainSpec
from labelmill.storage import etags_before

__all__ = ["TrainingSet", "load_training_set"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingSet:
    """Three splits over the same labels, which are in the order of the logits; binary has the positive one alone.

    The last of the training pictures are those of the spec's further sources; `num_extra` says how many from each.
    """

    labels: tuple[str, ...]
    train: Examples
    validation: Examples
    test: Examples
    fingerprint: str  # sha256 of every uri, etag, label, split and slice
    num_extra: tuple[int, ...] = ()

    def splits(self) -> dict[str, Examples]:
        return {"train": self.train, "validation": self.validation, "test": self.test}

    @property
    def num_pictures(self) -> int:
        return len(self.train) + len(self.validation) + len(self.test)

    @property
    def measured(self) -> Examples:
        """What measures the result: the test pictures, or where there are none the validation pictures."""
        return self.test if len(self.test) else self.validation

    def num_positives(self) -> dict[str, dict[str, int]]:
        """Label -> split -> pictures with that label."""
        sums = {name: examples.targets.sum(axis=0, dtype=int) for name, examples in self.splits().items()}
        return {label: {name: int(sums[name][column]) for name in sums} for column, label in enumerate(self.labels)}


def load_training_set(spec: TrainSpec) -> TrainingSet:
    """Read the labels, find every picture in the store, split, and add the further sources to the training pictures.

    DataError names what does not fit together, the first offenders and their number, and what to do. StorageError: the
    store or the labels file cannot be read.
    """
    labelled = load_labelled(spec.data.images, spec.data.labels)
    labels = _labels(spec, labelled)
    targets = labelled.targets_for(spec.task, labels)
    splits = _split(spec, labelled, targets)
    _check_splits(labelled.where, labels, targets, splits)
    everything = Examples(labelled.uris, labelled.etags, targets, labelled.columns.get("slice"))
    train, validation, test = (everything.take(np.flatnonzero(splits == index)) for index in range(len(SPLITS)))
    extra = [_extra(spec, source, labels) for source in spec.data.sources]
    train = _mixed(spec, train, extra)
    for examples in extra:
        _check_apart(labelled, examples)
    logger.info("%d pictures, %d labels", len(train) + len(validation) + len(test), len(labels))
    fingerprint = _fingerprint(labels, (train, validation, test))
    return TrainingSet(labels, train, validation, test, fingerprint, tuple(len(examples) for examples in extra))


def _labels(spec: TrainSpec, labelled: Labelled) -> tuple[str, ...]:
    """The labels that the task is about."""
    match spec.task:
        case "binary":
            return (_positive(spec, labelled),)
        case "multi_class":
            labelled.check_one_each(labelled.targets)
            if len(labelled.labels) == 1:
                raise DataError(
                    f"{labelled.where}: {labelled.labels[0]!r} is the only label, and task multi_class wants at least "
                    "two."
                )
    return labelled.labels


def _positive(spec: TrainSpec, labelled: Labelled) -> str:
    where, names = labelled.where, labelled.labels
    positive = spec.data.positive or (names[0] if len(names) == 1 else None)
    if positive is None or positive not in names:
        came = f"data.positive is {positive!r}" if positive else "data.positive is not set"
        raise DataError(
            f"{where}: task binary wants to know which label means yes, and {came}; labels here: {quoted(names)}. "
            "Set data.positive to one of them."
        )
    if labelled.targets[:, names.index(positive)].all():
        raise DataError(f"{where}: every picture is {positive!r}. Task binary needs pictures without it, too.")
    return positive


def _split(spec: TrainSpec, labelled: Labelled, targets: NDArray[np.uint8]) -> NDArray[np.int8]:
    """Index into SPLITS for each picture: the given words, or else by the seed."""
    shares, groups = spec.data.split, _groups(spec, labelled)
    if "split" not in labelled.columns:
        return stratify(targets, groups, (shares.train, shares.validation, shares.test), shares.seed)
    splits = _given(labelled)
    if not (splits == SPLITS.index("validation")).any():
        # Many public sets come as train and test alone. What chooses the thresholds must not be what measures them.
        learning = np.flatnonzero(splits == SPLITS.index("train"))
        total = shares.train + shares.validation
        splits[learning] = stratify(
            targets[learning],
            None if groups is None else groups[learning],
            (shares.train / total, shares.validation / total, 0.0),
            shares.seed,
        )
        logger.info("%s: no picture has split validation; took a share of train by data.split", labelled.where)
    if groups is not None:
        _check_groups(labelled, groups, splits)
    return splits


def _given(labelled: Labelled) -> NDArray[np.int8]:
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


def _check_groups(labelled: Labelled, groups: NDArray[np.int64], splits: NDArray[np.int8]) -> None:
    straddling = np.flatnonzero(splits != splits[groups])
    if len(straddling):
        words = pc.unique(labelled.columns["group"].take(pa.array(straddling))).to_pylist()
        raise DataError(
            f"{labelled.where}: groups {quoted(words)} have pictures in more than one split. "
            "Correct the column 'split' or 'group', or remove one of them."
        )


def _check_splits(where: str, names: tuple[str, ...], targets: NDArray[np.uint8], splits: NDArray[np.int8]) -> None:
    counts = np.array([targets[splits == index].sum(axis=0, dtype=np.int64) for index in range(len(SPLITS))])
    sizes = np.bincount(splits, minlength=len(SPLITS))
    if not sizes[0] or not sizes[1]:
        raise DataError(
            f"{where}: {sizes[0]} pictures to train and {sizes[1]} to validate; each needs at least one. "
            "Add pictures (or groups of them), or change data.split."
        )
    missing = [
        f"{name!r} ({SPLITS[int(counts[:, column].argmax())]}, {counts[:, column].sum()} pictures)"
        for column, name in enumerate(names)
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


def _extra(spec: TrainSpec, source: ExtraData, labels: tuple[str, ...]) -> Examples:
    labelled = load_labelled(source.images, source.labels)
    return Examples(labelled.uris, labelled.etags, labelled.targets_for(spec.task, labels))


def _check_apart(labelled: Labelled, extra: Examples) -> None:
    both = extra.uris.filter(pc.is_in(extra.uris, value_set=labelled.uris)).to_pylist()
    if both:
        raise DataError(
            f"data.sources: {shown(both)} are among the pictures of {labelled.where}, too, and might be measured on "
            "what they taught. Take them out of one of the two."
        )


def _mixed(spec: TrainSpec, main: Examples, extra: list[Examples]) -> Examples:
    """The main training pictures once an epoch, and `weight` of each source's for every one of them."""
    if not extra:
        return main
    parts = [replace(main, rates=np.ones(len(main)))]
    for source, examples in zip(spec.data.sources, extra, strict=True):
        rate = source.weight * len(main) / len(examples)
        no_slice = None if main.slices is None else pa.array([""] * len(examples), pa.string())
        parts.append(replace(examples, slices=no_slice, rates=np.full(len(examples), rate)))
    return Examples.concatenated(parts)


def _fingerprint(names: tuple[str, ...], splits: Iterable[Examples]) -> str:
    parts = list(splits)
    everything = Examples.concatenated([replace(part, rates=None) for part in parts])
    split_of = np.repeat(np.arange(len(parts), dtype=np.int8), [len(part) for part in parts])
    order = pc.sort_indices(everything.uris).to_numpy()
    digest = hashlib.sha256(repr(names).encode())
    slices = [] if everything.slices is None else [everything.slices]
    # A training of hours is not repeated for a chmod or a restored backup, nor one that etags without ctime identified.
    etags = pc.coalesce(etags_before(everything.uris, everything.etags), everything.etags)
    for column in (everything.uris, etags, *slices):
        for value in column.take(pa.array(order)).to_pylist():
            digest.update(f"{value}\0".encode())
    digest.update(np.ascontiguousarray(everything.targets[order]).tobytes())
    digest.update(split_of[order].tobytes())
    return digest.hexdigest()
