"""Pictures that stand in the page itself: small JPEGs, and the heat over them."""

import base64
import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

__all__ = ["heat_image", "jpeg_image"]

_HEAT_PX = 40  # the browser smooths it to the picture's size
_MAX_OPACITY = 0.66
_COLOURS = ((0.0, (255, 224, 102)), (0.5, (250, 130, 40)), (1.0, (205, 10, 60)))


def jpeg_image(pixels_hwc: NDArray[np.uint8], alt: str) -> str:
    """An <img> of RGB pixels. `alt` is escaped already."""
    return f'<img alt="{alt}" src="data:image/jpeg;base64,{_encoded(Image.fromarray(pixels_hwc), "JPEG", quality=76)}">'


def heat_image(heat_hw: NDArray[np.float32]) -> str:
    """An <img> to lie over a picture: clear where the heat is 0.0, deep red where it is 1.0."""
    heat = Image.fromarray(heat_hw).resize((_HEAT_PX, _HEAT_PX), Image.Resampling.BILINEAR)
    levels = (np.asarray(heat).clip(0, 1) * 255).round().astype(np.uint8)
    image = Image.fromarray(levels, "P")
    shares = np.linspace(0, 1, 256)
    places = [place for place, _ in _COLOURS]
    channels = [np.interp(shares, places, [colour[channel] for _, colour in _COLOURS]) for channel in range(3)]
    image.putpalette(np.stack(channels, axis=1).astype(np.uint8).tobytes())
    opacity = bytes((shares * _MAX_OPACITY * 255).astype(np.uint8))
    return f'<img class="heat" alt="" src="data:image/png;base64,{_encoded(image, "PNG", transparency=opacity)}">'


def _encoded(image: Image.Image, name: str, **options: object) -> str:
    buffer = io.BytesIO()
    image.save(buffer, name, optimize=True, **options)
    return base64.b64encode(buffer.getvalue()).decode()
