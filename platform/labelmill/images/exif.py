"""The EXIF orientation of a picture, and what it means for pixels and boxes (EXIF 2.32, section 4.6.4, tag 0x0112)."""

import struct

import numpy as np
from numpy.typing import NDArray

__all__ = ["Box", "orientation_of", "stored_box", "upright"]

Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels

_ORIENTATION = 0x0112
_SHORT = 3
_SWAPPED = (5, 6, 7, 8)  # width and height change places
_MIRRORED_X = (2, 3, 6, 7)  # after the swap
_MIRRORED_Y = (3, 4, 7, 8)


def orientation_of(exif: bytes) -> int:
    """The orientation, 1 to 8, in a block of EXIF (with or without its `Exif` prefix); 1 where there is none or it is
    damaged.
    """
    tiff = exif.removeprefix(b"Exif\0\0")
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (ifd,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, ifd)
        for entry in range(ifd + 2, ifd + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, entry)
            if tag == _ORIENTATION:
                return value if kind == _SHORT and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def upright(pixels_hwc: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """The pixels as a person should see them; a view where that is possible."""
    if orientation in _SWAPPED:
        pixels_hwc = pixels_hwc.transpose(1, 0, 2)
    if orientation in _MIRRORED_X:
        pixels_hwc = pixels_hwc[:, ::-1]
    if orientation in _MIRRORED_Y:
        pixels_hwc = pixels_hwc[::-1]
    return pixels_hwc


def stored_box(box: Box, width_px: int, height_px: int, orientation: int) -> Box:
    """Where a box of the upright picture, of this width and height, lies in the picture as it is stored."""
    left, top, right, bottom = box
    if orientation in _MIRRORED_X:
        left, right = width_px - right, width_px - left
    if orientation in _MIRRORED_Y:
        top, bottom = height_px - bottom, height_px - top
    return (top, left, bottom, right) if orientation in _SWAPPED else (left, top, right, bottom)
