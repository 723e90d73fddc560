"""Small pictures for tests, made here so that no test needs a file."""

import io
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["encoded", "exif_bytes", "jpeg_bytes", "png_bytes", "scene"]

Colour = tuple[int, int, int]


def jpeg_bytes(
    width: int = 48,
    height: int = 32,
    *,
    color: Colour | None = None,
    seed: int = 0,
    quality: int = 90,
    orientation: int | None = None,
    **options: Any,
) -> bytes:
    """A JPEG: one colour, or the scene of this seed. `options` go to Pillow (progressive=True, subsampling="4:2:0")."""
    if orientation is not None:
        options["exif"] = exif_bytes(orientation)
    return encoded(_picture(width, height, color, seed), "JPEG", quality=quality, **options)


def png_bytes(width: int = 48, height: int = 32, *, color: Colour | None = None, seed: int = 0) -> bytes:
    return encoded(_picture(width, height, color, seed), "PNG")


def scene(width: int, height: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth colours that differ everywhere, as in a photograph: uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    x, y = np.linspace(0, 1, width), np.linspace(0, 1, height)[:, None]
    channels = []
    for _ in range(3):
        across, down, phase = rng.uniform(1, 7, 3)
        channels.append(127.5 + 60 * np.sin(across * x + phase) + 60 * np.cos(down * y - phase))
    return np.stack(channels, axis=2).astype(np.uint8)


def encoded(picture: Image.Image | NDArray[Any], name: str, **options: Any) -> bytes:
    """The picture in the format that Pillow calls `name`."""
    if not isinstance(picture, Image.Image):
        picture = Image.fromarray(picture)
    buffer = io.BytesIO()
    picture.save(buffer, name, **options)
    return buffer.getvalue()


def exif_bytes(orientation: int, *, order: str = "<") -> bytes:
    """EXIF with one entry, the orientation, in little (`<`) or big (`>`) endian."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entry = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"Exif\0\0" + mark + struct.pack(order + "IH", 8, 1) + entry + struct.pack(order + "I", 0)


def _picture(width: int, height: int, color: Colour | None, seed: int) -> Image.Image:
    return Image.fromarray(scene(width, height, seed)) if color is None else Image.new("RGB", (width, height), color)
