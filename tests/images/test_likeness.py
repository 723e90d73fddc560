import io
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from labelmill.errors import UnreadableError
from labelmill.images.likeness import colours, perceptual_hashes, thumbnail
from pictures import encoded, jpeg_bytes, png_bytes, scene


def distance(first: bytes, second: bytes) -> int:
    """Bits that differ between the hashes of two pictures."""
    hashes = perceptual_hashes(np.stack([thumbnail(first), thumbnail(second)]))
    return int(np.bitwise_count(hashes[0] ^ hashes[1]))


def photograph(seed: int = 0, width: int = 160, height: int = 120) -> Image.Image:
    """Smooth colours with a few hard shapes in them."""
    rng = np.random.default_rng(seed)
    pixels = scene(width, height, seed)
    for _ in range(6):
        x, y, w, h = rng.integers(0, width), rng.integers(0, height), *rng.integers(8, 50, 2)
        pixels[y : y + h, x : x + w] = rng.integers(0, 256, 3)
    return Image.fromarray(pixels)


COPIES: dict[str, Callable[[Image.Image], bytes]] = {
    "compressed": lambda picture: encoded(picture, "JPEG", quality=50),
    "smaller": lambda picture: encoded(picture.resize((80, 60), Image.Resampling.BICUBIC), "PNG"),
    "larger": lambda picture: encoded(picture.resize((400, 300), Image.Resampling.BILINEAR), "WEBP"),
    "brighter": lambda picture: encoded(ImageEnhance.Brightness(picture).enhance(1.15), "PNG"),
    "gray": lambda picture: encoded(picture.convert("L").convert("RGB"), "PNG"),
}


@pytest.mark.parametrize("copy", COPIES)
def test_a_copy_keeps_its_hash(copy: str):
    pictures = [photograph(seed) for seed in range(4)]
    assert max(distance(encoded(picture, "PNG"), COPIES[copy](picture)) for picture in pictures) <= 6


def test_other_pictures_have_other_hashes():
    hashes = perceptual_hashes(np.stack([thumbnail(encoded(photograph(seed), "PNG")) for seed in range(60)]))
    apart = np.bitwise_count(hashes[:, None] ^ hashes)[np.triu_indices(60, 1)]
    assert apart.min() > 8
    assert 24 < apart.mean() < 36


def test_the_hash_sees_the_picture_upright():
    upright = encoded(photograph(3, 96, 64), "JPEG", quality=95)
    turned = Image.open(io.BytesIO(upright)).transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter, clockwise
    assert distance(upright, encoded(turned, "JPEG", quality=95)) > 6
    assert distance(upright, encoded(turned, "JPEG", quality=95, exif=exif)) <= 6


def test_colours_tell_flat_pictures_apart_that_the_hash_does_not():
    flat = np.stack([thumbnail(png_bytes(color=color)) for color in ((200, 10, 10), (10, 10, 200))])
    assert len(set(perceptual_hashes(flat).tolist())) == 1
    assert colours(flat).tolist() == [[200, 10, 10] * 16, [10, 10, 200] * 16]


def test_what_is_no_picture_has_no_likeness():
    with pytest.raises(UnreadableError):
        thumbnail(jpeg_bytes()[:200])
