"""The training set: pictures that are there, with labels that fit the task, each in one split."""

import hashlib
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labelmill.dataset.examples import Examples
from labelmill.dataset.labelled import Labelled, load_labelled
from labelmill.dataset.offenders import quoted, shown
from labelmill.dataset.sharing import Sharing
from labelmill.dataset.split import SPLITS
from labelmill.errors import DataError
from labelmill.spec import ExtraData, SplitWay, TrainSpec
from labelmill.storage import etags_before

__all__ = ["TrainingSet", "load_training_set", "load_training_sets"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingSet:
    """Three splits over the same labels, which are in the order of the logits; binary has the positive one alone.

    The last of the training pictures are those of the spec's further sources; `num_extra` says how many from each. All
    others lie below `root`.
    """

    labels: tuple[str, ...]
    train: Examples
    validation: Examples
    test: Examples
    fingerprint: str  # sha256 of every uri, etag, label, split and slice
    root: str
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
    return next(load_training_sets(spec, (spec.data.split.way,)))


def load_training_sets(spec: TrainSpec, ways: Iterable[SplitWay]) -> Iterator[TrainingSet]:
    """The training set as each of these ways splits it; what lies in the store is read once."""
    labelled = load_labelled(spec.data.images, spec.data.labels)
    labels = _labels(spec, labelled)
    targets = labelled.targets_for(spec.task, labels)
    sharing = Sharing(spec, labelled, labels, targets)
    everything = Examples(labelled.uris, labelled.etags, targets, labelled.columns.get("slice"))
    extra = [_extra(spec, source, labels) for source in spec.data.sources]
    for examples in extra:
        _check_apart(labelled, examples)
    logger.info("%d pictures, %d labels", len(everything) + sum(map(len, extra)), len(labels))
    for way in ways:
        splits = sharing.splits(way)
        train, validation, test = (everything.take(np.flatnonzero(splits == index)) for index in range(len(SPLITS)))
        train = _mixed(spec, train, extra)
        fingerprint = _fingerprint(labels, (train, validation, test))
        num_extra = tuple(len(examples) for examples in extra)
        yield TrainingSet(labels, train, validation, test, fingerprint, labelled.root, num_extra)


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
