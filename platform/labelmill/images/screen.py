"""Which pictures a GPU may decode: those whose pixels nvJPEG makes as libjpeg-turbo would.

Upright baseline JPEGs of three colours with every marker in its place, so small that turbo would decode them at full
size as well. The rest is for the cores: large pictures, which turbo decodes at a fraction of their size; and damaged
ones, whose row has to say so, as far as that shows without decoding. nvJPEG takes a wrong bit within a scan without a
word, as Pillow does; turbo notices most.
"""

from collections.abc import Sequence

from labelmill.errors import ImageError
from labelmill.images.decode import COVER
from labelmill.images.jpeg import LeaveToPillow, dct_scale, is_whole, open_jpeg
from labelmill.images.transform import Preprocessing, evaluation_box

__all__ = ["size_for_gpu"]

_LONGEST_PX = 1024  # pictures that are decoded together take as much memory as the longest of them


def size_for_gpu(image: bytes, preprocessings: Sequence[Preprocessing], *, max_pixels: int) -> tuple[int, int] | None:
    """Width and height of a picture that a GPU may decode for networks with these preprocessings; of others None."""
    if not image.startswith(b"\xff\xd8\xff"):
        return None
    try:
        header = open_jpeg(image)
    except (LeaveToPillow, ImageError):
        return None
    width_px, height_px = header.width_px, header.height_px
    if not header.plain or header.orientation != 1:
        return None
    if not 0 < width_px * height_px <= max_pixels or max(width_px, height_px) > _LONGEST_PX:
        return None
    for preprocessing in preprocessings:
        left, top, right, bottom = evaluation_box(width_px, height_px, preprocessing)
        if dct_scale(COVER * preprocessing.image_size_px / min(right - left, bottom - top)) < 8:
            return None
    return (width_px, height_px) if is_whole(image, header) else None
