"""The resize is Pillow's bicubic one, to the rounding between its two directions."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from labelmill.images.resize import resize, resize_all, resize_by_pillow
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
    difference = np.abs(resize(picture, box, size_px).astype(int) - resize_by_pillow(picture, box, size_px))
    assert difference.max() <= 2
    assert difference.mean() < 0.1


@pytest.mark.parametrize("size_px", [20, 80])
def test_the_result_may_be_written_to(size_px):
    """Or torch warns of each array that it is given."""
    assert resize_all(scene(40, 30), size_px).flags.writeable


def test_overshoot_is_clipped_not_wrapped():
    edge = np.zeros((32, 32, 3), dtype=np.uint8)
    edge[:, 16:] = 255
    pixels = resize(edge, (0.0, 0.0, 32.0, 32.0), 100)
    assert pixels[:, :40].max() <= 20
    assert pixels[:, 60:].min() >= 235


def test_a_whole_picture_at_its_own_size_is_itself():
    picture = scene(37, 37)
    assert np.array_equal(resize(picture, (0.0, 0.0, 37.0, 37.0), 37), picture)


def test_a_box_that_rounding_put_outside_the_picture_is_cut():
    picture = scene(40, 30)
    outside = (-1e-9, 0.0, 40.0 + 1e-9, 30.0 + 1e-9)
    assert np.array_equal(resize(picture, outside, 20), resize(picture, (0.0, 0.0, 40.0, 30.0), 20))


def test_a_column_centred_on_a_pixel_reads_nothing_outside_the_picture():
    for width_px, size_px in [(10, 65), (10, 129), (640, 640), (65, 65)]:
        picture = scene(width_px, 1)
        box = ((width_px - 1) / 2 - 0.5 / size_px, 0.0, (width_px + 1) / 2 - 0.5 / size_px, 1.0)
        found, expected = resize(picture, box, size_px), resize_by_pillow(picture, box, size_px)
        assert np.abs(found.astype(int) - expected).max() <= 1


def test_a_large_picture_far_from_the_box_changes_nothing():
    picture = scene(2500, 1800)
    box = (1003.5, 702.5, 1290.0, 995.25)
    alone = picture[600:1100, 900:1400]
    expected = resize(alone, (103.5, 102.5, 390.0, 395.25), 24)
    assert np.array_equal(resize(picture, box, 24), expected)
    assert np.abs(expected.astype(int) - resize_by_pillow(picture, box, 24)).max() <= 2


def test_threads_that_resize_at_once_do_not_disturb_each_other():
    pictures = [scene(300 + 20 * number, 200, number) for number in range(8)]
    alone = [resize_all(picture, 64) for picture in pictures]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(lambda picture: resize_all(picture, 64), pictures * 10))
    assert all(np.array_equal(found, alone[index % 8]) for index, found in enumerate(together))
