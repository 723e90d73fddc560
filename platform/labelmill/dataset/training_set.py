"""The training set: pictures that are there, with labels that fit the task, each in one split."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from labelmill.dataset.labels_file import LABEL_SEPARATOR, LabelRows, read_labels_file
from labelmill.dataset.split import SPLITS, assign_splits, rarest_labels
from labelmill.errors import DataError
from labelmill.spec import TrainSpec
from labelmill.storage import LISTING_SCHEMA, Store, open_store

__all__ = ["Examples", "TrainingSet", "load_training_set"]

logger = logging.getLogger(__name__)

_PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})
_NUM_OFFENDERS_SHOWN = 5


@dataclass(frozen=True)
class Examples:
    """Pictures with their targets: uris [N], etags [N], and 0 or 1 for each label, uint8 [N, L].

    `slices` [N] are what the labels file says in its column slice, "" for none.
    """

    uris: pa.Array
    etags: pa.Array
    targets: NDArray[np.uint8]
    slices: pa.Array | None = None

    def __len__(self) -> int:
        return len(self.uris)

    def take(self, indices: NDArray[np.int64]) -> "Examples":
        rows = pa.array(indices)
        slices = None if self.slices is None else self.slices.take(rows)
        return Examples(self.uris.take(rows), self.etags.take(rows), self.targets[indices], slices)


@dataclass(frozen=True)
class TrainingSet:
    """Three splits over the same labels, which are in the order of the logits; binary has the positive one alone."""

    labels: tuple[str, ...]
    train: Examples
    validation: Examples
    test: Examples
    fingerprint: str  # sha256 of every uri, etag, label and split

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
    """Read the labels, find every picture in the store, and split.

    DataError names what does not fit together, the first offenders and their number, and what to do. StorageError: the
    store or the labels file cannot be read.
    """
    store = open_store(spec.data.images)
    listed = _list(store)
    if spec.data.labels == "folders":
        rows = _rows_from_folders(store, listed.column("uri"))
    else:
        rows = _with_addresses(read_labels_file(spec.data.labels), store)
    found = _find(spec, rows.uris, listed.column("uri"))
    names, targets = _targets(rows)
    kept = _without_repeats(spec, rows.uris, targets, rows.splits)
    uris, etags, targets = (
        rows.uris.take(kept),
        listed.column("etag").combine_chunks().take(found).take(kept),
        targets[kept],
    )
    given = None if rows.splits is None else rows.splits.take(kept)
    names, targets = _for_task(spec, names, uris, targets)
    splits = _split(spec, targets, given)
    _check_splits(spec, names, targets, splits)
    logger.info("%d pictures, %d labels", len(uris), len(names))
    everything = Examples(uris, etags, targets)
    train, validation, test = (everything.take(np.flatnonzero(splits == index)) for index in range(len(SPLITS)))
    return TrainingSet(names, train, validation, test, _fingerprint(names, uris, etags, targets, splits))


def _list(store: Store) -> pa.Table:
    """uri and etag of every object below the root."""
    listed = pa.Table.from_batches(store.list(), schema=LISTING_SCHEMA).select(["uri", "etag"])
    if not len(listed):
        raise DataError(f"{store.uri}: no pictures here. Set data.images to the folder or prefix that holds them.")
    return listed


def _rows_from_folders(store: Store, listed_uris: pa.ChunkedArray) -> LabelRows:
    uris = [uri for uri in listed_uris.to_pylist() if PurePosixPath(uri).suffix.lower() in _PICTURE_SUFFIXES]
    ignored = len(listed_uris) - len(uris)
    if ignored:
        logger.info("%s: %d files are no pictures by their ending, and left out", store.uri, ignored)
    if not uris:
        raise DataError(
            f"{store.uri}: none of {ignored} files ends like a picture ({', '.join(sorted(_PICTURE_SUFFIXES))}). "
            "Set data.images to the folder whose sub-folders are the labels."
        )
    root = PurePosixPath(store.uri)
    loose = [uri for uri in uris if PurePosixPath(uri).parent == root]
    if loose:
        raise DataError(
            f"{store.uri}: {_shown(loose)} lie in no folder, and with labels: folders the parent folder is the label. "
            "Move them into a folder, or give a labels file."
        )
    labels = pa.array([PurePosixPath(uri).parent.name for uri in uris], pa.string())
    return LabelRows(pa.array(uris, pa.string()), np.arange(len(uris)), labels, None)


def _with_addresses(rows: LabelRows, store: Store) -> LabelRows:
    def address(uri: str) -> str:
        uri = uri.removeprefix("file://")
        return uri if uri.startswith("/") or "://" in uri else store.address(uri.removeprefix("./"))

    uris = pa.array([address(uri) for uri in rows.uris.to_pylist()], pa.string())
    return LabelRows(uris, rows.rows, rows.labels, rows.splits)


def _find(spec: TrainSpec, uris: pa.Array, listed_uris: pa.ChunkedArray) -> pa.Array:
    """Where each picture stands in the listing."""
    if not len(uris):
        raise DataError(f"{spec.data.labels}: no rows. Give at least one labelled picture a split.")
    found = pc.index_in(uris, value_set=listed_uris.combine_chunks())
    unknown = uris.filter(pc.is_null(found)).to_pylist()
    if unknown:
        raise DataError(
            f"{spec.data.labels}: {_shown(unknown)} are not below data.images ({spec.data.images}). "
            "Relative uris start there, absolute ones must lie there: correct them, or remove these rows."
        )
    return found


def _targets(rows: LabelRows) -> tuple[tuple[str, ...], NDArray[np.uint8]]:
    """Label names in order, and 0 or 1 for each, [N, L]."""
    names = tuple(sorted(pc.unique(rows.labels).to_pylist()))
    codes = pc.index_in(rows.labels, value_set=pa.array(names, pa.string())).to_numpy(zero_copy_only=False)
    targets = np.zeros((len(rows.uris), len(names)), dtype=np.uint8)
    targets[rows.rows, codes.astype(np.int64)] = 1
    return names, targets


def _without_repeats(
    spec: TrainSpec, uris: pa.Array, targets: NDArray[np.uint8], splits: pa.Array | None
) -> NDArray[np.int64]:
    """The first row of each picture; a picture that is given twice with different words is an error."""
    first = pc.index_in(uris, value_set=uris).to_numpy(zero_copy_only=False).astype(np.int64)
    repeats = np.flatnonzero(first != np.arange(len(first)))
    differing = (targets[repeats] != targets[first[repeats]]).any(axis=1)
    if splits is not None:
        words = np.array(splits.to_pylist(), dtype=object)
        differing |= words[repeats] != words[first[repeats]]
    if differing.any():
        offenders = sorted(set(uris.take(pa.array(repeats[differing])).to_pylist()))
        raise DataError(
            f"{spec.data.labels}: {_shown(offenders)} stand there more than once, with different labels or splits. "
            f"Keep one row a picture; several labels of one go into one field, separated by {LABEL_SEPARATOR!r}."
        )
    if len(repeats):
        logger.info(
            "%s: %d rows repeat a picture with the same labels, and are left out", spec.data.labels, len(repeats)
        )
    return np.flatnonzero(first == np.arange(len(first)))


def _for_task(
    spec: TrainSpec, names: tuple[str, ...], uris: pa.Array, targets: NDArray[np.uint8]
) -> tuple[tuple[str, ...], NDArray[np.uint8]]:
    where = spec.data.images if spec.data.labels == "folders" else spec.data.labels
    if not names:
        raise DataError(f"{where}: {len(uris)} pictures and not one label. Fill the column 'labels'.")
    match spec.task:
        case "binary":
            return _binary(spec, where, names, targets)
        case "multi_class":
            wrong = uris.filter(pa.array(targets.sum(axis=1) != 1)).to_pylist()
            if wrong:
                raise DataError(
                    f"{where}: {_shown(wrong)} have no label or several, and task multi_class wants exactly one. "
                    "Correct them, or set task: multi_label."
                )
            if len(names) == 1:
                raise DataError(f"{where}: {names[0]!r} is the only label, and task multi_class wants at least two.")
    return names, targets


def _binary(
    spec: TrainSpec, where: str, names: tuple[str, ...], targets: NDArray[np.uint8]
) -> tuple[tuple[str, ...], NDArray[np.uint8]]:
    positive = spec.data.positive or (names[0] if len(names) == 1 else None)
    if positive is None or positive not in names:
        came = f"data.positive is {positive!r}" if positive else "data.positive is not set"
        raise DataError(
            f"{where}: task binary wants to know which label means yes, and {came}; labels here: {_listed(names)}. "
            "Set data.positive to one of them."
        )
    column = targets[:, [names.index(positive)]]
    if column.all():
        raise DataError(f"{where}: every picture is {positive!r}. Task binary needs pictures without it, too.")
    return (positive,), column


def _split(spec: TrainSpec, targets: NDArray[np.uint8], given: pa.Array | None) -> NDArray[np.int8]:
    """Index into SPLITS for each picture: the given words, or else by the seed."""
    shares = spec.data.split
    rows, codes = np.nonzero(targets)
    strata = rarest_labels(rows, codes, len(targets), targets.shape[1])
    if given is None:
        return assign_splits(strata, (shares.train, shares.validation, shares.test), shares.seed)
    words = pc.index_in(given, value_set=pa.array(SPLITS))
    if words.null_count:
        wrong = [repr(word) for word in pc.unique(given.filter(pc.is_null(words))).to_pylist()]
        raise DataError(
            f"{spec.data.labels}: column 'split' holds {_shown(wrong)} in {words.null_count} rows; expected one of "
            f"{', '.join(SPLITS)} in every row. Correct them, or remove the column: data.split then decides."
        )
    splits: NDArray[np.int8] = words.to_numpy(zero_copy_only=False).astype(np.int8)
    if not (splits == SPLITS.index("validation")).any():
        # Many public sets come as train and test alone. What chooses the thresholds must not be what measures them.
        learning = np.flatnonzero(splits == SPLITS.index("train"))
        total = shares.train + shares.validation
        splits[learning] = assign_splits(
            strata[learning], (shares.train / total, shares.validation / total, 0.0), shares.seed
        )
        logger.info("%s: no picture has split validation; took a share of train by data.split", spec.data.labels)
    return splits


def _check_splits(
    spec: TrainSpec, names: tuple[str, ...], targets: NDArray[np.uint8], splits: NDArray[np.int8]
) -> None:
    counts = np.array([targets[splits == index].sum(axis=0, dtype=np.int64) for index in range(len(SPLITS))])
    sizes = [int((splits == index).sum()) for index in range(len(SPLITS))]
    if not sizes[0] or not sizes[1]:
        raise DataError(
            f"{spec.data.labels}: {sizes[0]} pictures to train and {sizes[1]} to validate; each needs at least one. "
            "Add pictures, or change data.split."
        )
    lonely = [
        f"{name!r} ({SPLITS[int(counts[:, column].argmax())]}, {counts[:, column].sum()} pictures)"
        for column, name in enumerate(names)
        if not counts[0, column] or (counts[:, column] > 0).sum() < 2
    ]
    if lonely:
        raise DataError(
            f"{spec.data.labels}: labels that stand in one split only, or not in train: {_shown(lonely)}. The network "
            "cannot learn them, or nobody can measure it: add pictures of them, or remove the label."
        )


def _fingerprint(
    names: tuple[str, ...], uris: pa.Array, etags: pa.Array, targets: NDArray[np.uint8], splits: NDArray[np.int8]
) -> str:
    order = pc.sort_indices(uris).to_numpy()
    digest = hashlib.sha256(repr(names).encode())
    for column in (uris, etags):
        for value in column.take(pa.array(order)).to_pylist():
            digest.update(f"{value}\0".encode())
    digest.update(np.ascontiguousarray(targets[order]).tobytes())
    digest.update(splits[order].tobytes())
    return digest.hexdigest()


def _shown(offenders: Sequence[str]) -> str:
    """The first few, and how many there are."""
    listed = ", ".join(offenders[:_NUM_OFFENDERS_SHOWN])
    return (
        listed
        if len(offenders) <= _NUM_OFFENDERS_SHOWN
        else f"{listed} and {len(offenders) - _NUM_OFFENDERS_SHOWN} more"
    )


def _listed(names: Sequence[str]) -> str:
    return _shown([repr(name) for name in names])
