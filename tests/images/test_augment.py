"""Training sees a random part of the picture, and the same one for the same random state."""

import numpy as np
import pytest

from labelmill.errors import UnreadableError
from labelmill.images.augment import training_box, training_pixels
from labelmill.images.transform import Preprocessing
from labelmill.spec import Augment
from pictures import encoded, exif_bytes, jpeg_bytes

PREPROCESSING = Preprocessing(32)


def position(width: int, height: int) -> np.ndarray:
    """Red grows to the right, green grows downwards."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, np.full_like(x, 128)], axis=2).astype(np.uint8)


def seen(data: bytes, seed: int, flip="none", crop_scale=(0.3, 1.0), side_px=32, **changes) -> np.ndarray:
    augment = Augment(flip=flip, crop_scale=crop_scale, **changes)
    return training_pixels(data, Preprocessing(side_px), augment, rng=np.random.default_rng(seed))


def test_the_same_random_state_gives_the_same_pixels():
    data = jpeg_bytes(120, 90)
    assert np.array_equal(seen(data, 3, "both"), seen(data, 3, "both"))
    assert len({seen(data, seed, "both").tobytes() for seed in range(8)}) == 8


def test_pixels_are_what_the_network_takes():
    pixels = seen(jpeg_bytes(301, 77), 0, "both")
    assert (pixels.shape, pixels.dtype, pixels.flags.c_contiguous) == ((32, 32, 3), np.uint8, True)


def test_pictures_of_any_size_take_equally_many_random_numbers():
    after = set()
    for size in ((120, 90), (2000, 3), (1, 1), (40, 41)):
        rng = np.random.default_rng(0)
        training_pixels(jpeg_bytes(*size), PREPROCESSING, Augment(), rng=rng)
        after.add(float(rng.random()))
    assert len(after) == 1


@pytest.mark.parametrize("crop_scale", [(0.08, 0.2), (0.7, 1.0), (0.5, 0.5)])
def test_boxes_keep_area_and_aspect_within_bounds(crop_scale):
    rng = np.random.default_rng(0)
    for _ in range(300):
        left, top, right, bottom = training_box(400, 300, crop_scale, rng)
        assert 0 <= left < right <= 400
        assert 0 <= top < bottom <= 300
        width, height = right - left, bottom - top
        assert crop_scale[0] - 0.01 <= width * height / 120_000 <= crop_scale[1] + 0.01
        assert 3 / 4 - 0.02 <= width / height <= 4 / 3 + 0.02


@pytest.mark.parametrize("size", [(1000, 10), (10, 1000), (1, 1), (3, 1), (1, 4000)])
def test_a_picture_too_long_for_any_box_gives_its_centre(size):
    left, top, right, bottom = training_box(*size, (1.0, 1.0), np.random.default_rng(0))
    assert 0 <= left < right <= size[0]
    assert 0 <= top < bottom <= size[1]
    assert abs((left + right) - size[0]) <= 1
    assert abs((top + bottom) - size[1]) <= 1


@pytest.mark.parametrize(("flip", "ways"), [("none", {(1, 1)}), ("horizontal", {(1, 1), (-1, 1)})])
def test_flips_are_those_asked_for(flip, ways):
    assert directions(flip) == ways


def test_both_flips_in_every_direction():
    assert directions("both") == {(1, 1), (-1, 1), (1, -1), (-1, -1)}


def directions(flip) -> set[tuple[int, int]]:
    """In which direction red and green grow, over many seeds."""
    data = encoded(position(100, 80), "PNG")
    found = set()
    for seed in range(30):
        pixels = seen(data, seed, flip).astype(int)
        found.add(
            (int(np.sign(pixels[16, -1, 0] - pixels[16, 0, 0])), int(np.sign(pixels[-1, 16, 1] - pixels[0, 16, 1])))
        )
    return found


def test_the_part_shown_is_the_part_drawn():
    for size, orientation in (((640, 480), 1), ((641, 479), 1), ((640, 480), 6)):
        upright = size if orientation == 1 else size[::-1]
        stored = position(*upright)
        if orientation == 6:
            stored = np.ascontiguousarray(np.rot90(stored, 1))
        data = encoded(stored, "JPEG", quality=97, subsampling="4:4:4", exif=exif_bytes(orientation))
        left, top, right, bottom = training_box(*upright, (0.3, 1.0), np.random.default_rng(5))
        pixels = seen(data, 5).astype(float)
        x, y = (left + right) / 2 / upright[0] * 255, (top + bottom) / 2 / upright[1] * 255
        assert abs(pixels[:, :, 0].mean() - x) < 1
        assert abs(pixels[:, :, 1].mean() - y) < 1


def test_a_damaged_picture_is_an_image_error():
    data = jpeg_bytes(200, 150)
    with pytest.raises(UnreadableError):
        seen(data[: len(data) // 2], 0)


WHOLE = {"flip": "none", "crop_scale": (1.0, 1.0)}
FLAT = encoded(np.full((40, 40, 3), (200, 120, 40), dtype=np.uint8), "PNG")


@pytest.mark.parametrize("preset", ["light", "medium", "heavy"])
def test_a_preset_varies_more_than_the_one_before_it_and_repeats_itself(preset):
    data = jpeg_bytes(120, 90)
    augment = Augment(preset=preset)
    views = [training_pixels(data, PREPROCESSING, augment, rng=np.random.default_rng(seed)) for seed in (1, 2, 3, 1)]
    assert all((view.shape, view.dtype) == ((32, 32, 3), np.uint8) for view in views)
    assert np.array_equal(views[0], views[3])
    assert not np.array_equal(views[0], views[1])


def test_each_setting_changes_the_pixels_and_leaving_it_out_does_not():
    data = encoded(np.random.default_rng(0).integers(0, 256, (150, 150, 3), dtype=np.uint8), "PNG")
    plain = seen(data, 4, side_px=128, **WHOLE)
    for change in (
        {"colour": {"brightness": 0.5}},
        {"colour": {"contrast": 0.5}},
        {"colour": {"saturation": 0.5}},
        {"colour": {"hue": 0.2}},
        {"grayscale": 1},
        {"blur": 1},
        {"erase": 1},
        {"rotate_deg": 30},
        {"shear_deg": 20},
        {"perspective": 0.4},
    ):
        views = [seen(data, seed, side_px=128, **WHOLE, **change) for seed in range(4, 8)]
        assert not np.array_equal(views[0], plain), change
        assert len({view.tobytes() for view in views}) == (1 if "grayscale" in change else 4), change
        off = {name: dict.fromkeys(value, 0) if isinstance(value, dict) else 0 for name, value in change.items()}
        assert np.array_equal(seen(data, 4, side_px=128, **WHOLE, **off), plain), change


def test_erasing_and_turning_happen_as_often_as_asked():
    views = [seen(FLAT, seed, **WHOLE, erase=0.25) for seed in range(200)]
    touched = [float((view != FLAT_COLOUR).any(axis=2).mean()) for view in views]
    erased = [share for share in touched if share]
    assert 0.17 < len(erased) / len(views) < 0.33
    assert 0.015 < min(erased) < max(erased) < 0.36


FLAT_COLOUR = np.array([200, 120, 40])


def test_what_shows_beside_a_turned_picture_is_the_mean_colour():
    white = encoded(np.full((40, 40, 3), 255, dtype=np.uint8), "PNG")
    corners = {tuple(seen(white, seed, **WHOLE, rotate_deg=45)[0, 0].tolist()) for seed in range(20)} - {
        (255, 255, 255)
    }
    ground = np.round(255 * np.array(PREPROCESSING.mean))
    assert any(np.array_equal(corner, ground) for corner in corners)


def test_a_turn_is_about_the_centre_and_within_the_bounds():
    pixels = np.zeros((41, 41, 3), dtype=np.uint8)
    pixels[18:23, 20:] = 255  # a hand that points to the right
    angles = []
    for seed in range(60):
        view = training_pixels(
            encoded(pixels, "PNG"),
            Preprocessing(41),
            Augment(**WHOLE, rotate_deg=30),
            rng=np.random.default_rng(seed),
        )
        rows, columns = np.nonzero((view > 200).all(axis=2))
        assert abs(rows.mean() - 20) < 7
        angles.append(np.degrees(np.arctan2(rows.mean() - 20, columns.mean() - 20)))
    assert -33 < min(angles) < -15 and 15 < max(angles) < 33
