"""From the bytes of a picture to RGB pixels, safely: whatever the bytes are, the answer is pixels or an `ImageError`.

JPEG goes through libjpeg-turbo at the DCT scale that is needed, every other format on the list through Pillow. Both
check the size in the header against the limit before they decode. One decode serves training, validation, bulk, serving
and evaluation.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from labelmill.errors import TooLargeError, UnreadableError, UnsupportedError
from labelmill.images.exif import Box, stored_box, upright
from labelmill.images.jpeg import JpegHeader, LeaveToPillow, dct_scale, open_jpeg, read_jpeg
from labelmill.images.pillow import open_pillow, read_pillow
from labelmill.images.resize import resize
from labelmill.images.sniff import FORMATS, describe, sniff

__all__ = ["COVER", "MAX_PIXELS", "OpenPicture", "Picture", "decode", "open_picture", "sniff"]

MAX_PIXELS = 200_000_000
COVER = 1.5  # times the target that the decoded pixels must cover; below, the result drifts from a full decode


@dataclass(frozen=True)
class Picture:
    """Pixels of a picture. `width_px` and `height_px` are its full size, upright; the pixels may be a smaller version
    of it.
    """

    pixels_hwc: NDArray[np.uint8]  # RGB
    width_px: int
    height_px: int

    def __repr__(self) -> str:
        height_px, width_px, _ = self.pixels_hwc.shape
        return f"Picture({self.width_px} x {self.height_px} px, decoded to {width_px} x {height_px})"


@dataclass(frozen=True, slots=True)
class OpenPicture:
    """A picture whose size is known and whose pixels are decoded at the scale that somebody needs."""

    width_px: int  # upright
    height_px: int
    orientation: int
    read: Callable[[float], tuple[NDArray[np.uint8], float]]  # scale needed -> pixels as stored, and their true scale

    def crop(self, box: Box, size_px: int) -> NDArray[np.uint8]:
        """The part of the upright picture in `box`, in one bicubic resize: uint8 [size_px, size_px, 3].

        A box may start and end between pixels.
        Raises UnreadableError where the pixels turn out to be damaged.
        """
        stored_hwc, (left, top, right, bottom) = self._read(box, size_px)
        pixels_hwc = resize(stored_hwc, (left, top, right, bottom), size_px)
        return np.ascontiguousarray(upright(pixels_hwc, self.orientation))

    def cut(self, box: Box, size_px: int) -> NDArray[np.uint8]:
        """The pixels of the upright picture in `box`, enough of them for a resize to `size_px`: uint8 [H, W, 3].

        Where a smaller version is enough, the pixels that the box touches.
        Raises UnreadableError where the pixels turn out to be damaged.
        """
        stored_hwc, (left, top, right, bottom) = self._read(box, size_px)
        part_hwc = stored_hwc[math.floor(top) : math.ceil(bottom), math.floor(left) : math.ceil(right)]
        return upright(part_hwc, self.orientation)

    def _read(self, box: Box, size_px: int) -> tuple[NDArray[np.uint8], Box]:
        """Pixels as stored, at the scale that is needed, and the box within them."""
        left, top, right, bottom = box
        stored_hwc, scale = self.read(COVER * size_px / min(right - left, bottom - top))
        # The true scale, not the ratio of sizes: a size is rounded up, and the ratio would shift the picture by up to
        # half a pixel.
        left, top, right, bottom = (
            side * scale for side in stored_box(box, self.width_px, self.height_px, self.orientation)
        )
        return stored_hwc, (left, top, right, bottom)


def decode(data: bytes, *, min_side_px: int | None = None, max_pixels: int = MAX_PIXELS) -> Picture:
    """The picture in these bytes, upright, as RGB.

    With `min_side_px` the pixels may be a smaller version of the picture, whose shorter side is still that long (or as
    long as the picture's). Gray, palette, CMYK, YCCK and 16-bit pictures become RGB; alpha is laid over white; of an
    animation this is the first frame.

    Raises UnsupportedError (no format on the list), TooLargeError (more pixels than `max_pixels`; decided from the
    header, before any decoding) or UnreadableError (empty, truncated, damaged), and nothing else.
    Pillow itself holds TIFF and WebP to 178,956,970 pixels.
    """
    picture = open_picture(data, max_pixels=max_pixels)
    shorter_px = min(picture.width_px, picture.height_px)
    pixels_hwc, _ = picture.read(1.0 if min_side_px is None else min_side_px / shorter_px)
    return Picture(np.ascontiguousarray(upright(pixels_hwc, picture.orientation)), picture.width_px, picture.height_px)


def open_picture(data: bytes, *, max_pixels: int = MAX_PIXELS) -> OpenPicture:
    """The picture's size, from its header, and the way to its pixels. Raises as `decode` does."""
    if not data:
        raise UnreadableError("the file is empty")
    name = sniff(data)
    if name is None:
        raise UnsupportedError(f"expected a picture ({', '.join(FORMATS)}), got something else: {describe(data)}")
    check_size = partial(_check_size, max_pixels=max_pixels)
    if name == "jpeg":
        try:
            return _through_turbo(data, open_jpeg(data), check_size)
        except LeaveToPillow:
            pass
    return _through_pillow(data, name, check_size)


def _through_turbo(data: bytes, header: JpegHeader, check_size: Callable[[int, int], None]) -> OpenPicture:
    check_size(header.width_px, header.height_px)

    decoded: dict[int, tuple[NDArray[np.uint8], float]] = {}  # by scale: two networks mostly need the same one

    def read(scale: float) -> tuple[NDArray[np.uint8], float]:
        eighths = dct_scale(scale)
        if eighths not in decoded:
            try:
                decoded[eighths] = read_jpeg(data, header, eighths), eighths / 8
            except LeaveToPillow:
                return read_pillow(open_pillow(data, "jpeg", check_size)[0], scale)
        return decoded[eighths]

    return _opened(header.width_px, header.height_px, header.orientation, read)


def _through_pillow(data: bytes, name: str, check_size: Callable[[int, int], None]) -> OpenPicture:
    picture, orientation = open_pillow(data, name, check_size)
    return _opened(picture.width, picture.height, orientation, partial(read_pillow, picture))


def _opened(
    width_px: int, height_px: int, orientation: int, read: Callable[[float], tuple[NDArray[np.uint8], float]]
) -> OpenPicture:
    width_px, height_px = (height_px, width_px) if orientation >= 5 else (width_px, height_px)
    return OpenPicture(width_px, height_px, orientation, read)


def _check_size(width_px: int, height_px: int, *, max_pixels: int) -> None:
    if width_px < 1 or height_px < 1:
        raise UnreadableError(f"the header says {width_px} x {height_px} pixels")
    if width_px * height_px > max_pixels:
        raise TooLargeError(
            f"{width_px} x {height_px} = {width_px * height_px:,} pixels, more than the limit of {max_pixels:,}; "
            "make it smaller or raise max_pixels"
        )
