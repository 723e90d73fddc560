"""How alike two pictures look, whatever their size, format and compression: a hash of 64 bits and a few colours.

The hash is the perceptual hash of C. Zauner, Implementation and Benchmarking of Perceptual Image Hash Functions, 2010:
which of the lowest frequencies of the gray picture lie over their median. Copies that were resized, compressed again
or slightly edited differ in a few bits. It knows nothing of colour, and smooth pictures have few bits set: hence the
colours beside it.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from labelmill.images.decode import MAX_PIXELS, open_picture

__all__ = ["COLOURS_PX", "THUMBNAIL_PX", "colours", "perceptual_hashes", "thumbnail"]

THUMBNAIL_PX = 32
COLOURS_PX = 4
_LOWEST = 8
# A wave of a quarter of a level: less is rounding and compression, which would set the bits of smooth pictures by
# chance (measured on such: 24 bits between a picture and its JPEG at quality 50 without this, 2 with it).
_NOISE = 64.0
_GRAY = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R BT.601


def thumbnail(data: bytes, *, max_pixels: int = MAX_PIXELS) -> NDArray[np.uint8]:
    """The whole picture squeezed into uint8 [32, 32, 3]. Raises what `decode` raises."""
    picture = open_picture(data, max_pixels=max_pixels)
    return picture.crop((0, 0, picture.width_px, picture.height_px), THUMBNAIL_PX)


def perceptual_hashes(thumbnails_bhwc: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """A hash for each thumbnail [B, 32, 32, 3], uint64 [B]; like pictures differ in few of its bits."""
    gray_bhw = thumbnails_bhwc.astype(np.float32) @ _GRAY
    lowest = _cosines() @ gray_bhw @ _cosines().T
    frequencies = lowest.reshape(len(gray_bhw), -1)[:, 1:]  # without the mean, which is brightness alone
    over = frequencies > np.median(frequencies, axis=1, keepdims=True) + _NOISE
    bits = np.concatenate([np.zeros((len(over), 1), bool), over], axis=1)
    hashes: NDArray[np.uint64] = np.packbits(bits, axis=1).view(">u8").astype(np.uint64)[:, 0]
    return hashes


def colours(thumbnails_bhwc: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The mean colours of 4 x 4 parts of each thumbnail, uint8 [B, 48]."""
    side = THUMBNAIL_PX // COLOURS_PX
    parts = thumbnails_bhwc.reshape(-1, COLOURS_PX, side, COLOURS_PX, side, 3)
    means: NDArray[np.uint8] = parts.mean(axis=(2, 4)).round().astype(np.uint8).reshape(len(parts), -1)
    return means


@cache
def _cosines() -> NDArray[np.float32]:
    """The lowest rows of the discrete cosine transform (type II), [8, 32]."""
    frequency, pixel = np.arange(_LOWEST)[:, None], np.arange(THUMBNAIL_PX)
    return np.cos(np.pi * frequency * (2 * pixel + 1) / (2 * THUMBNAIL_PX)).astype(np.float32)
