"""A few pictures of a split as a network sees them, for what statistics of its layers are taken from."""

import logging

import numpy as np
from numpy.typing import NDArray

from labelmill.dataset import Examples
from labelmill.errors import DataError, ImageError
from labelmill.images.transform import Preprocessing, evaluation_pixels
from labelmill.storage import read_pictures

__all__ = ["sample_pixels"]

logger = logging.getLogger(__name__)

_READ_AT_ONCE = 64


def sample_pixels(
    examples: Examples, preprocessing: Preprocessing, num_pictures: int, max_pixels: int
) -> NDArray[np.uint8]:
    """Pixels [N, S, S, 3] of pictures drawn at random, the same every time, as the network will see them; what cannot
    be read is passed over. DataError: none can be read."""
    order = np.random.default_rng(0).permutation(len(examples))
    uris, etags = examples.uris.to_pylist(), examples.etags.to_pylist()
    found: list[NDArray[np.uint8]] = []
    for start in range(0, len(order), _READ_AT_ONCE):
        chosen = order[start : start + min(_READ_AT_ONCE, num_pictures - len(found))].tolist()
        for data in read_pictures([(uris[index], etags[index]) for index in chosen]):
            if isinstance(data, bytes):
                try:
                    found.append(evaluation_pixels(data, preprocessing, max_pixels=max_pixels)[0])
                except ImageError as exc:
                    logger.debug("passed over: %s", exc)
        if len(found) == num_pictures:
            break
    if not found:
        raise DataError(f"none of {len(examples)} training pictures can be read to sample them.")
    return np.stack(found)
