"""Labels from folders: the parent folder of a picture is its label, and a top folder may be its split."""

import logging
from collections import Counter
from functools import partial

import numpy as np
import pyarrow as pa

from labelmill.address import key_below
from labelmill.dataset.labels_file import LabelRows
from labelmill.dataset.offenders import shown
from labelmill.dataset.split import split_word
from labelmill.errors import DataError, UnavailableError
from labelmill.images.sniff import PICTURE_ENDINGS, START_BYTES, has_ending, is_picture
from labelmill.storage import Store, read_ranges

__all__ = ["read_folders"]

logger = logging.getLogger(__name__)

_ENDINGS_SHOWN = 5


def read_folders(store: Store, listed_uris: list[str]) -> LabelRows:
    """Rows for every object that ends like a picture, or has no ending and begins like one.

    Where all of them lie as `train/<label>/...`, `validation/<label>/...` or `test/<label>/...` (`val` and `valid` mean
    validation), with train and at least one other among them, those top folders are the column split. DataError: no
    pictures, or pictures in no folder.
    """
    uris, others = _sorted_out(listed_uris)
    if others:
        logger.info("%s: %d files are no pictures, and left out: %s", store.uri, len(others), _endings(others))
    if not uris:
        raise DataError(
            f"{store.uri}: none of {len(others)} files ends like a picture ({', '.join(PICTURE_ENDINGS)}), or begins "
            "like one without an ending. Set data.images to the folder whose sub-folders are the labels."
        )
    folders = [key_below(uri, store.uri).split("/")[:-1] for uri in uris]
    loose = [uri for uri, names in zip(uris, folders, strict=True) if not names]
    if loose:
        raise DataError(
            f"{store.uri}: {shown(loose)} lie in no folder, and with labels: folders the parent folder is the label. "
            "Move them into a folder, or give a labels file."
        )
    labels = pa.array([names[-1] for names in folders], pa.string())
    return LabelRows(pa.array(uris, pa.string()), np.arange(len(uris)), labels, _splits(folders))


def _sorted_out(uris: list[str]) -> tuple[list[str], list[str]]:
    """The pictures, and what is none."""
    asked = [uri for uri in uris if not has_ending(uri)]
    starts: dict[str, bytes] = {}
    for uri, start in zip(asked, read_ranges([(uri, None, 0, START_BYTES) for uri in asked]), strict=True):
        if isinstance(start, UnavailableError):
            raise start
        starts[uri] = start if isinstance(start, bytes) else b""
    taken = [is_picture(uri, partial(starts.__getitem__, uri)) for uri in uris]
    pairs = list(zip(uris, taken, strict=True))
    return [uri for uri, picture in pairs if picture], [uri for uri, picture in pairs if not picture]


def _endings(uris: list[str]) -> str:
    counts = Counter(f".{uri.rpartition('.')[2].lower()}" if has_ending(uri) else "without ending" for uri in uris)
    return ", ".join(f"{count:,} {ending}" for ending, count in counts.most_common(_ENDINGS_SHOWN))


def _splits(folders: list[list[str]]) -> dict[str, pa.Array]:
    top = {names[0] if len(names) > 1 else "" for names in folders}
    words = {split_word(name) for name in top}
    if None in words or "train" not in words or len(words) < 2:
        return {}
    logger.info("the top folders %s are the splits", ", ".join(sorted(top)))
    return {"split": pa.array([names[0] for names in folders], pa.string())}
