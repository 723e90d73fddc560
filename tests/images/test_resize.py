"""Our resize is Pillow's bicubic one, to the rounding of its intermediate result."""

import numpy as np
import pytest
from PIL import Image

from labelmill.images.resize import resize
from pictures import scene


@pytest.mark.parametrize("seed", range(40))
def test_any_box_and_size_agree_with_pillow(seed):
    rng = np.random.default_rng(seed)
    width, height = (int(side) for side in rng.integers(1, 400, 2))
    size_px = int(rng.integers(1, 300))
    left, right = np.sort(rng.uniform(0, width, 2))
    top, bottom = np.sort(rng.uniform(0, height, 2))
    box = (float(left), float(top), float(max(right, left + 0.1)), float(max(bottom, top + 0.1)))
    box = (min(box[0], width - 0.1), min(box[1], height - 0.1), min(box[2], width), min(box[3], height))
    picture = scene(width, height, seed)
    expected = Image.fromarray(picture).resize((size_px, size_px), Image.Resampling.BICUBIC, box=box)
    assert np.abs(resize(picture, box, size_px).astype(int) - np.asarray(expected)).max() <= 1


def test_overshoot_is_clipped_not_wrapped():
    edge = np.zeros((32, 32, 3), dtype=np.uint8)
    edge[:, 16:] = 255
    pixels = resize(edge, (0.0, 0.0, 32.0, 32.0), 100)
    assert pixels[:, :40].max() <= 20
    assert pixels[:, 60:].min() >= 235


def test_a_whole_picture_at_its_own_size_is_itself():
    picture = scene(37, 37)
    assert np.array_equal(resize(picture, (0.0, 0.0, 37.0, 37.0), 37), picture)


@pytest.mark.parametrize("channels", [1, 3])
def test_very_large_scales_are_computed_in_pieces(channels):
    picture = np.repeat(scene(2500, 1800)[:, :, :1], channels, axis=2)
    box = (3.5, 2.5, 2490.0, 1795.25)
    expected = Image.fromarray(picture[:, :, 0]).resize((24, 24), Image.Resampling.BICUBIC, box=box)
    pixels = resize(picture, box, 24)
    assert pixels.shape == (24, 24, channels)
    assert np.abs(pixels[:, :, 0].astype(int) - np.asarray(expected)).max() <= 1
