"""Every format but JPEG, and the JPEGs that turbo refuses, through Pillow.

The plugin of the sniffed format is called directly: `PIL.Image.open` would try others, one of which (EPS) hands the
file to another program, and its limit on pixels is a global of the process. Ours is checked here, from the header,
before a pixel is decoded.
"""

import io
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from numpy.typing import NDArray
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from labelmill.errors import ImageError, TooLargeError, UnreadableError, UnsupportedError
from labelmill.images.exif import orientation_of

__all__ = ["open_pillow", "read_pillow"]

_PLUGINS: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "jpeg": JpegImagePlugin.JpegImageFile,
    "png": PngImagePlugin.PngImageFile,
    "webp": WebPImagePlugin.WebPImageFile,
    "gif": GifImagePlugin.GifImageFile,
    "bmp": BmpImagePlugin.BmpImageFile,
    "tiff": TiffImagePlugin.TiffImageFile,
    "avif": AvifImagePlugin.AvifImageFile,
}
_SIXTEEN_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
_GAP = (
    2.0  # pixels are averaged in whole blocks down to this many times what is needed; the bicubic filter does the rest
)


def open_pillow(data: bytes, name: str, check_size: Callable[[int, int], None]) -> tuple[Image.Image, int]:
    """The decoded picture in mode RGB, and the orientation still to be applied. `check_size` gets width and height
    before any decoding.
    """
    with _our_errors(name):
        picture = _plugin(name)(io.BytesIO(data))
        check_size(*picture.size)
        picture.load()
        check_size(*picture.size)
        return _rgb(picture, name), _orientation(picture)


def _plugin(name: str) -> Callable[[io.BytesIO], ImageFile.ImageFile]:
    if name != "heic":
        return _PLUGINS[name]
    try:
        from pillow_heif.as_plugin import HeifImageFile  # its codec is patented and 26 MB: an extra
    except ImportError as exc:
        raise UnsupportedError(
            "HEIC needs pillow-heif, which is not installed: pip install 'labelmill[heic]' on every node, "
            "then label with `retry: [unsupported]`"
        ) from exc
    plugin: Callable[[io.BytesIO], ImageFile.ImageFile] = HeifImageFile
    return plugin


def read_pillow(picture: Image.Image, scale: float) -> tuple[NDArray[np.uint8], float]:
    """RGB pixels at a scale of one over a whole number, twice `scale` or more unless that is over 1; and that scale."""
    factor = max(1, int(1 / (_GAP * scale)))
    with _our_errors("picture"):
        reduced = picture.reduce(factor) if factor > 1 else picture
        return np.asarray(reduced), 1 / factor


def _rgb(picture: ImageFile.ImageFile, name: str) -> Image.Image:
    """Alpha is laid over white, the paper on which a cut-out is usually seen; 16 bits are scaled to 8, not clipped."""
    if picture.mode in _SIXTEEN_BITS:
        levels = np.asarray(picture.convert("I;16") if picture.mode != "I;16" else picture).astype(np.uint32)
        return Image.fromarray(((levels + 128) // 257).astype(np.uint8)).convert("RGB")
    if picture.mode in ("I", "F", "LAB"):
        kind = {"I": "32-bit whole numbers", "F": "floating point", "LAB": "CIELAB"}[picture.mode]
        raise UnsupportedError(f"the {name} holds {kind}; save it as RGB or gray with 8 or 16 bits a channel")
    if picture.has_transparency_data:
        drawn = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", drawn.size, "white"), drawn).convert("RGB")
    return picture if picture.mode == "RGB" else picture.convert("RGB")


def _orientation(picture: ImageFile.ImageFile) -> int:
    """From what Pillow found while loading; a TIFF it has turned upright already."""
    if isinstance(picture, TiffImagePlugin.TiffImageFile):
        return 1
    exif = picture.info.get("exif")
    if exif is None and isinstance(text := picture.info.get("Raw profile type exif"), str):  # ImageMagick's PNGs
        exif = bytes.fromhex("".join(text.split("\n")[3:]))
    return orientation_of(exif) if isinstance(exif, bytes) else 1


@contextmanager
def _our_errors(name: str) -> Iterator[None]:
    # Pillow warns of odd metadata, which is no news to whoever labels pictures. A filter that stays is the one way that
    # is safe with threads.
    warnings.filterwarnings("ignore", module=r"PIL\.(\w*ImagePlugin|Image)$")
    try:
        yield
    except ImageError:
        raise
    except Image.DecompressionBombError as exc:  # some plugins look at the global limit while they decode
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)
        raise TooLargeError(
            f"a {name} may have {limit:,} pixels at most, which is Pillow's limit; make it smaller"
        ) from exc
    except MemoryError as exc:
        raise TooLargeError(f"the {name} needs more memory than there is; make it smaller") from exc
    except Exception as exc:  # Pillow's readers raise whatever the damage makes of their code
        raise UnreadableError(f"the {name} is damaged: {_one_line(exc)}") from exc


def _one_line(exc: Exception) -> str:
    text = re.sub(r"<[^>]*>|\bat 0x[0-9a-fA-F]+", "", str(exc))
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return text[:160] or type(exc).__name__
