"""One matrix for all colours: held against torchvision.transforms.v2 where that has the same operation."""

import numpy as np
import pytest
from PIL import Image

from labelmill.images.colour import varied_colours
from labelmill.spec import Augment
from pictures import scene

# Nothing reaches 0 or 255 on the way: torchvision cuts off after each step, we at the end.
PIXELS = (scene(60, 50, seed=2) // 3 + 80).astype(np.uint8)


class Draws:
    """A generator that draws what it is told: brightness, contrast, saturation, hue, gray."""

    def __init__(self, **draws: float) -> None:
        self._draws = draws

    def random(self, count: int) -> list[float]:
        return [self._draws.get(name, 0.5) for name in ("brightness", "contrast", "saturation", "hue", "gray")][:count]


def varied(pixels: np.ndarray, augment: Augment, **draws: float) -> np.ndarray:
    return varied_colours(pixels, augment, Draws(**draws))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
@pytest.mark.parametrize("draw", [0.0, 0.2, 0.9])
def test_a_factor_does_what_torchvision_does_with_it(name, draw):
    from torchvision.transforms.v2 import functional

    factor = 1 + (2 * draw - 1) * 0.4
    expected = np.asarray(getattr(functional, f"adjust_{name}")(Image.fromarray(PIXELS), factor), dtype=int)
    found = varied(PIXELS, Augment(colour={name: 0.4}), **{name: draw})
    assert np.abs(found - expected).max() <= 1
    assert np.abs(found.astype(int) - PIXELS).mean() > 3


def test_gray_is_what_pillow_calls_gray():
    expected = np.asarray(Image.fromarray(PIXELS).convert("L").convert("RGB"), dtype=int)
    assert np.abs(varied(PIXELS, Augment(grayscale=1)) - expected).max() <= 1
    assert np.array_equal(varied(PIXELS, Augment(grayscale=0.3), gray=0.31), PIXELS)


def test_hue_turns_colours_and_leaves_brightness_and_gray():
    luma = np.array([0.299, 0.587, 0.114])
    for draw in (0.0, 0.25, 0.8):
        turned = varied(PIXELS, Augment(colour={"hue": 0.1}), hue=draw)
        assert np.abs(turned @ luma - PIXELS @ luma).max() <= 1
        assert np.abs(turned.astype(int) - PIXELS).mean() > 1
    gray = np.full((8, 8, 3), 130, dtype=np.uint8)
    assert np.array_equal(varied(gray, Augment(colour={"hue": 0.5}), hue=0.1), gray)
    red = np.full((2, 2, 3), (200, 60, 60), dtype=np.uint8)
    by_a_third = varied(red, Augment(colour={"hue": 0.5}), hue=0.5 + 1 / 3)[0, 0].tolist()  # a draw of 0.5 is no turn
    assert by_a_third[1] == max(by_a_third), f"red should have become green, as in HSV: {by_a_third}"


def test_what_leaves_the_range_is_cut_off_and_never_wraps():
    pixels = np.array([[[250, 5, 128]]], dtype=np.uint8)
    assert varied(pixels, Augment(colour={"brightness": 1}), brightness=1.0).tolist() == [[[255, 10, 255]]]
    assert varied(pixels, Augment(colour={"brightness": 1}), brightness=0.0).tolist() == [[[0, 0, 0]]]


def test_the_jitter_stays_within_its_bounds():
    gray = np.full((4, 4, 3), 100, dtype=np.uint8)
    rng = np.random.default_rng(0)
    levels = [int(varied_colours(gray, Augment(colour={"brightness": 0.3}), rng)[0, 0, 0]) for _ in range(300)]
    assert 70 <= min(levels) < 75 and 125 < max(levels) <= 130
