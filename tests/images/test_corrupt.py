import numpy as np
import pytest

from labelmill.images.corrupt import CORRUPTIONS, corrupted
from pictures import scene


@pytest.mark.parametrize("name", CORRUPTIONS)
@pytest.mark.parametrize("side_px", [32, 224])
def test_each_strength_harms_more_than_the_one_before(name, side_px):
    rng = np.random.default_rng(0)
    pixels = scene(side_px, side_px, seed=4)
    pixels[side_px // 4 : side_px // 2, side_px // 3 : side_px // 2] = (10, 20, 230)  # an edge to blur
    untouched = pixels.copy()
    harm = []
    for strength in range(1, 6):
        worse = corrupted(pixels, name, strength, rng)
        assert (worse.shape, worse.dtype) == (pixels.shape, np.uint8)
        harm.append(np.abs(worse.astype(float) - pixels).mean())
    assert harm == sorted(harm)
    assert 0 < harm[0] < harm[-1]
    assert harm[-1] > 1.2 * harm[0]
    assert (pixels == untouched).all()


def test_white_stays_white_and_does_not_wrap_around():
    white = np.full((32, 32, 3), 255, np.uint8)
    assert (corrupted(white, "brightness", 5, np.random.default_rng(0)) == 255).all()
    assert corrupted(white, "noise", 5, np.random.default_rng(0)).mean() > 220


def test_a_small_picture_is_blurred_as_much_as_a_large_one():
    def edge(side_px):
        pixels = np.zeros((side_px, side_px, 3), np.uint8)
        pixels[:, side_px // 2 :] = 255
        row = corrupted(pixels, "blur", 5, np.random.default_rng(0))[side_px // 2, :, 0]
        return ((row > 12) & (row < 243)).mean()  # how wide the edge became, of the side

    assert edge(64) == pytest.approx(edge(512), rel=0.35)
