"""Labels from folders: the parent folder of a picture is its label, and a top folder may be its split."""

import logging
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa

from labelmill.dataset.labels_file import LabelRows
from labelmill.dataset.offenders import shown
from labelmill.dataset.split import split_word
from labelmill.errors import DataError
from labelmill.storage import Store

__all__ = ["read_folders"]

logger = logging.getLogger(__name__)

_PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".jpe", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif"})


def read_folders(store: Store, listed_uris: list[str]) -> LabelRows:
    """Rows for every object that ends like a picture.

    Where all of them lie as `train/<label>/...`, `validation/<label>/...` or `test/<label>/...` (`val` and `valid` mean
    validation), with train and at least one other among them, those top folders are the column split. DataError: no
    pictures, or pictures in no folder.
    """
    uris = [uri for uri in listed_uris if PurePosixPath(uri).suffix.lower() in _PICTURE_SUFFIXES]
    ignored = len(listed_uris) - len(uris)
    if ignored:
        logger.info("%s: %d files are no pictures by their ending, and left out", store.uri, ignored)
    if not uris:
        raise DataError(
            f"{store.uri}: none of {ignored} files ends like a picture ({', '.join(sorted(_PICTURE_SUFFIXES))}). "
            "Set data.images to the folder whose sub-folders are the labels."
        )
    folders = [uri.removeprefix(store.uri).strip("/").split("/")[:-1] for uri in uris]
    loose = [uri for uri, names in zip(uris, folders, strict=True) if not names]
    if loose:
        raise DataError(
            f"{store.uri}: {shown(loose)} lie in no folder, and with labels: folders the parent folder is the label. "
            "Move them into a folder, or give a labels file."
        )
    labels = pa.array([names[-1] for names in folders], pa.string())
    return LabelRows(pa.array(uris, pa.string()), np.arange(len(uris)), labels, _splits(folders))


def _splits(folders: list[list[str]]) -> dict[str, pa.Array]:
    top = {names[0] if len(names) > 1 else "" for names in folders}
    words = {split_word(name) for name in top}
    if None in words or "train" not in words or len(words) < 2:
        return {}
    logger.info("the top folders %s are the splits", ", ".join(sorted(top)))
    return {"split": pa.array([names[0] for names in folders], pa.string())}
