"""Labelled pictures that are there: a labels file, or folders, joined with the listing of the store."""

import logging
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from labelmill.address import real_uri, split_uri
from labelmill.dataset.examples import Examples
from labelmill.dataset.folders import read_folders
from labelmill.dataset.labels_file import LABEL_SEPARATOR, LabelRows, read_labels_file
from labelmill.dataset.offenders import quoted, shown
from labelmill.errors import DataError, StorageError
from labelmill.storage import LISTING_SCHEMA, Store, as_listed, open_store

__all__ = ["Labelled", "load_examples", "load_labelled"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Labelled:
    """Pictures of a store, one row each: uris and etags [N], and 0 or 1 for each label found, uint8 [N, L].

    `columns` are what the labels file says besides, strings [N] by FURTHER_COLUMNS. `where` names it in errors.
    """

    where: str
    uris: pa.Array
    etags: pa.Array
    labels: tuple[str, ...]
    targets: NDArray[np.uint8]
    columns: dict[str, pa.Array]

    def __len__(self) -> int:
        return len(self.uris)

    def targets_for(self, task: str, labels: tuple[str, ...]) -> NDArray[np.uint8]:
        """0 or 1 for each of `labels`, in their order, uint8 [N, len(labels)].

        With task binary `labels` is the positive one alone, and every other means no. DataError: a label that is not
        among them, or with task multi_class not exactly one a picture.
        """
        unknown = [label for label in self.labels if label not in labels]
        if unknown and task != "binary":
            raise DataError(
                f"{self.where}: {quoted(unknown)} are not among the labels {quoted(labels)}. "
                "Rename them, or remove the pictures that show them."
            )
        targets = np.zeros((len(self), len(labels)), dtype=np.uint8)
        for column, label in enumerate(labels):
            if label in self.labels:
                targets[:, column] = self.targets[:, self.labels.index(label)]
        if task == "multi_class":
            self.check_one_each(targets)
        return targets

    def check_one_each(self, targets: NDArray[np.uint8]) -> None:
        """DataError names the pictures without exactly one label."""
        wrong = self.uris.filter(pa.array(targets.sum(axis=1) != 1)).to_pylist()
        if wrong:
            raise DataError(
                f"{self.where}: {shown(wrong)} have no label or several, and task multi_class wants exactly one. "
                "Correct them, or set task: multi_label."
            )


def load_examples(images: str, labels: str, *, task: str, known: tuple[str, ...]) -> Examples:
    """All pictures of a labelled set, with targets for the `known` labels of a model, in their order.

    `images` and `labels` are as in a spec's data. DataError and StorageError as `load_labelled` and `targets_for`.
    """
    labelled = load_labelled(images, labels)
    return Examples(
        labelled.uris, labelled.etags, labelled.targets_for(task, known), slices=labelled.columns.get("slice")
    )


def load_labelled(images: str, labels: str) -> Labelled:
    """Read the labels, and find every picture in the store at `images`.

    DataError names what does not fit together, the first offenders and their number, and what to do. StorageError: the
    store or the labels file cannot be read.
    """
    store = open_store(images)
    listed = _list(store)
    if labels == "folders":
        where, rows = images, read_folders(store, listed.column("uri").to_pylist())
    else:
        where, rows = labels, _with_addresses(read_labels_file(labels), store, listed.column("uri"))
    found = _find(where, images, rows.uris, listed.column("uri"))
    names, targets = _targets(rows)
    if not names:
        raise DataError(f"{where}: {len(rows.uris)} pictures and not one label. Fill the column 'labels'.")
    kept = _without_repeats(where, rows, targets)
    return Labelled(
        where,
        rows.uris.take(kept),
        listed.column("etag").combine_chunks().take(found).take(kept),
        names,
        targets[kept],
        {name: column.take(kept) for name, column in rows.columns.items()},
    )


def _list(store: Store) -> pa.Table:
    """uri and etag of every object below the root."""
    listed = pa.Table.from_batches(store.list(), schema=LISTING_SCHEMA).select(["uri", "etag"])
    if not len(listed):
        raise DataError(f"{store.uri}: no pictures here. Set data.images to the folder or prefix that holds them.")
    return listed


def _with_addresses(rows: LabelRows, store: Store, listed_uris: pa.ChunkedArray) -> LabelRows:
    """The rows with the addresses that the listing has; one that it lacks may lead to a listed file by another path."""
    uris = as_listed(rows.uris, store.uri)
    unknown = pc.invert(pc.is_in(uris, value_set=listed_uris.combine_chunks()))
    if pc.any(unknown).as_py() and split_uri(store.uri)[0] == "/":
        listed = {real_uri(uri): uri for uri in reversed(listed_uris.to_pylist())}
        names = [listed.get(_real(uri), uri) for uri in uris.filter(unknown).to_pylist()]
        uris = pc.replace_with_mask(uris, unknown, pa.array(names, pa.string()))
    return LabelRows(uris, rows.rows, rows.labels, rows.columns)


def _real(uri: str) -> str:
    try:
        return real_uri(uri)
    except StorageError:
        return uri


def _find(where: str, images: str, uris: pa.Array, listed_uris: pa.ChunkedArray) -> pa.Array:
    """Where each picture stands in the listing."""
    if not len(uris):
        raise DataError(f"{where}: no rows. Give at least one labelled picture a split.")
    found = pc.index_in(uris, value_set=listed_uris.combine_chunks())
    unknown = uris.filter(pc.is_null(found)).to_pylist()
    if unknown:
        raise DataError(
            f"{where}: {shown(unknown)} are not below images ({images}). "
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


def _without_repeats(where: str, rows: LabelRows, targets: NDArray[np.uint8]) -> NDArray[np.int64]:
    """The first row of each picture; a picture that is given twice with different words is an error."""
    first = pc.index_in(rows.uris, value_set=rows.uris).to_numpy(zero_copy_only=False).astype(np.int64)
    repeats = np.flatnonzero(first != np.arange(len(first)))
    differing = (targets[repeats] != targets[first[repeats]]).any(axis=1)
    for column in rows.columns.values():
        words = np.array(column.to_pylist(), dtype=object)
        differing |= words[repeats] != words[first[repeats]]
    if differing.any():
        offenders = sorted(set(rows.uris.take(pa.array(repeats[differing])).to_pylist()))
        also = " or ".join(["labels", *(f"{name}s" for name in rows.columns)])
        raise DataError(
            f"{where}: {shown(offenders)} stand there more than once, with different {also}. "
            f"Keep one row a picture; several labels of one go into one field, separated by {LABEL_SEPARATOR!r}."
        )
    if len(repeats):
        logger.info("%s: %d rows repeat a picture with the same labels, and are left out", where, len(repeats))
    return np.flatnonzero(first == np.arange(len(first)))
