"""JPEG through libjpeg-turbo, at the DCT scale that somebody needs.

What turbo cannot read (lossless, 12 bits, rare samplings) is left to Pillow: `open_jpeg` and `read_jpeg` then raise
`LeaveToPillow`.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import simplejpeg
from numpy.typing import NDArray

from labelmill.errors import UnreadableError
from labelmill.images.exif import orientation_of

__all__ = ["JpegHeader", "LeaveToPillow", "dct_scale", "is_whole", "open_jpeg", "read_jpeg"]

# libjpeg-turbo has vector code for these scales only: at 5/8 to 7/8 it takes longer than at full size (measured: 1.2 to
# 2 times).
_SCALES = (1, 2, 4, 8)  # eighths
_END_OF_IMAGE = b"\xff\xd9"
_SOI, _TEM, _SOS, _APP1, _BASELINE, _PROGRESSIVE = 0xD8, 0x01, 0xDA, 0xE1, 0xC0, 0xC2
_MAX_SCANS = 500  # each scan passes over all pixels, and an empty one costs ten bytes; real encoders write 10 or so


class LeaveToPillow(Exception):  # noqa: N818 - a message between our own two readers; no user meets it
    """Turbo refuses this JPEG, which says nothing about whether it is damaged."""


@dataclass(frozen=True, slots=True)
class JpegHeader:
    width_px: int  # as stored, before the orientation is applied
    height_px: int
    orientation: int
    four_inks: bool
    scan_start: int  # the first byte of the first scan's entropy-coded data
    plain: bool  # baseline, and three colours as cameras write them


def open_jpeg(data: bytes) -> JpegHeader:
    """Size and orientation, from the header alone. Raises `LeaveToPillow` or `UnreadableError`."""
    try:
        height_px, width_px, colours, _ = simplejpeg.decode_jpeg_header(data)
    except ValueError as exc:
        raise LeaveToPillow(str(exc)) from exc
    orientation, baseline = 1, False
    scan_start = len(data)
    for marker, start, end in _segments(data):
        if marker == _APP1 and orientation == 1 and data.startswith(b"Exif\0\0", start):
            orientation = orientation_of(data[start:end])
        elif marker == _SOS:
            scan_start = end
        elif marker == _BASELINE:
            baseline = True
        elif marker == _PROGRESSIVE and _num_scans(data) > _MAX_SCANS:
            raise UnreadableError(f"the jpeg has more than {_MAX_SCANS} scans, which only an attack needs")
    return JpegHeader(
        width_px,
        height_px,
        orientation,
        four_inks=colours in ("CMYK", "YCCK"),
        scan_start=scan_start,
        plain=baseline and colours == "YCbCr",
    )


def is_whole(data: bytes, header: JpegHeader) -> bool:
    """Whether nothing but one scan follows the header, to the last byte, with no marker in it where none belongs and no
    bytes that repeat: what is cut off, pasted together or has a hole in it is not whole. (Nor are some drawings in few
    colours, whose scan repeats.)"""
    num_blocks = header.width_px * header.height_px // 64
    scan_bytes = len(data) - header.scan_start - len(_END_OF_IMAGE)
    # A block is two codes at least, one that it begins with and one that ends it.
    if not data.endswith(_END_OF_IMAGE) or 8 * scan_bytes < 2 * max(1, num_blocks):
        return False
    scan = np.frombuffer(data, dtype=np.uint8, count=scan_bytes + 1, offset=header.scan_start)
    after_ff = scan[np.flatnonzero(scan[:-1] == 0xFF) + 1]
    if np.any((after_ff != 0) & ((after_ff < 0xD0) | (after_ff > 0xD7))):
        return False
    words = np.frombuffer(data, dtype=np.uint64, count=(len(data) - header.scan_start) // 8, offset=header.scan_start)
    return not np.any(words[1:] == words[:-1])


def dct_scale(scale: float) -> int:
    """The smallest DCT scale, in eighths, that is at least `scale`; 8, the full size, where none is."""
    return next((eighths for eighths in _SCALES if eighths >= scale * 8), 8)


def read_jpeg(data: bytes, header: JpegHeader, eighths: int) -> NDArray[np.uint8]:
    """RGB pixels at one of turbo's DCT scales. A truncated file is an `UnreadableError`."""
    wanted: dict[str, Any] = {
        "colorspace": "CMYK" if header.four_inks else "RGB",
        "min_height": math.ceil(header.height_px * eighths / 8),
        "min_width": math.ceil(header.width_px * eighths / 8),
    }
    try:
        pixels_hwc = simplejpeg.decode_jpeg(data, **wanted)
    except ValueError as exc:
        pixels_hwc = _decode_again(data, wanted, str(exc), exc)
    # A tiny picture has the same size in pixels at several scales, and turbo then takes the smallest of them.
    if pixels_hwc.shape[0] != wanted["min_height"] or pixels_hwc.shape[1] != wanted["min_width"]:
        raise LeaveToPillow(f"{pixels_hwc.shape} where {wanted} was asked for")
    return _mixed(pixels_hwc) if header.four_inks else pixels_hwc


def _mixed(inks_hwc: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """RGB of CMYK as Adobe stores it, inverted: how much light each ink lets through. Every CMYK JPEG in use is one."""
    light = inks_hwc[..., :3].astype(np.uint16) * inks_hwc[..., 3:]
    return ((light + 127) // 255).astype(np.uint8)


def _decode_again(data: bytes, wanted: dict[str, Any], reason: str, cause: ValueError) -> NDArray[np.uint8]:
    """Tells a file that lacks only its last marker, which is whole, from one that lacks pixels."""
    if "Premature end of JPEG file" in reason:
        try:
            pixels_hwc: NDArray[np.uint8] = simplejpeg.decode_jpeg(data + _END_OF_IMAGE, **wanted)
        except ValueError as exc:
            raise UnreadableError("the jpeg is truncated: the file ends before its last pixel; copy it again") from exc
        return pixels_hwc
    if "Corrupt JPEG data" in reason and "extraneous bytes" not in reason:
        raise UnreadableError(f"the jpeg is damaged: {reason}") from cause
    raise LeaveToPillow(reason) from cause  # harmless padding, or a warning that Pillow's reader does not have


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Markers up to that of the first scan, and where their contents begin and end (ITU-T T.81, annex B)."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker in (_TEM, _SOI) or 0xD0 <= marker <= 0xD7:  # these have no content
            at += 2
            continue
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        yield marker, at + 4, end
        if marker == _SOS:
            return
        at = end


def _num_scans(data: bytes) -> int:
    codes = np.frombuffer(data, dtype=np.uint8)
    after_ff = codes[1:][codes[:-1] == 0xFF]  # ten times faster than bytes.count, whose worst case are many 0xFF
    return int(np.count_nonzero(after_ff == _SOS))
