"""The evaluation transform agrees with Pillow and torchvision, which everybody's models were trained with."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from labelmill.errors import BundleError, TooLargeError
from labelmill.images import decode
from labelmill.images.transform import Preprocessing, evaluation_pixels, evaluation_views
from pictures import encoded, exif_bytes, jpeg_bytes, scene


def reference(data: bytes, preprocessing: Preprocessing) -> np.ndarray:
    transforms = pytest.importorskip("torchvision.transforms")
    keep = transforms.Compose(
        [
            transforms.Resize(preprocessing.resize_px, transforms.InterpolationMode.BICUBIC, antialias=True),
            transforms.CenterCrop(preprocessing.image_size_px),
        ]
    )
    from PIL import ImageOps

    return np.asarray(keep(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")))


def difference(data: bytes, preprocessing: Preprocessing) -> np.ndarray:
    ours, _, _ = evaluation_pixels(data, preprocessing)
    return np.abs(ours.astype(int) - reference(data, preprocessing))


def gradient(width: int, height: int) -> np.ndarray:
    """Position as colour: red counts columns, green counts rows. A shift by half a pixel shows."""
    x, y = np.meshgrid(np.linspace(0, 255, width), np.linspace(0, 255, height))
    return np.stack([x, y, np.full_like(x, 128)], axis=2).round().astype(np.uint8)


@pytest.mark.parametrize("crop_fraction", [0.875, 0.95, 1.0])
@pytest.mark.parametrize(
    "size",
    [(64, 64), (63, 50), (50, 63), (97, 33), (33, 97), (201, 41), (75, 301), (20, 13), (7, 30), (1, 1), (3, 200)],
)
def test_the_crop_lies_where_torchvision_has_it(size, crop_fraction):
    preprocessing = Preprocessing(32, crop_fraction)
    assert difference(encoded(gradient(*size), "PNG"), preprocessing).max() <= 2


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_crop_of_a_turned_picture_is_that_of_the_upright_one(orientation):
    data = encoded(gradient(75, 50), "PNG", exif=exif_bytes(orientation))
    assert difference(data, Preprocessing(31, 0.9)).max() <= 2


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("size", [(401, 301), (399, 299), (642, 483), (1001, 703)])
def test_decoding_at_a_dct_scale_shifts_nothing(size, orientation):
    """Sides that do not divide by eight are rounded up, so the ratio of decoded to full size is not the scale."""
    data = encoded(gradient(*size), "JPEG", quality=98, subsampling="4:4:4", exif=exif_bytes(orientation))
    shift = np.abs(
        evaluation_pixels(data, Preprocessing(32, 0.875))[0].astype(float).mean((0, 1))
        - reference(data, Preprocessing(32, 0.875)).astype(float).mean((0, 1))
    )
    assert shift.max() < 0.5
    assert difference(data, Preprocessing(32, 0.875)).mean() < 1


def detailed(width: int, height: int) -> np.ndarray:
    """Noise whose amplitude falls with its frequency, most of it in brightness, as in photographs (Field, 1987)."""
    noise = np.fft.rfft2(np.random.default_rng(1).standard_normal((3, height, width)))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    smooth = np.fft.irfft2(noise / frequency**1.3, s=(height, width))
    smooth = 45 * smooth[:1] / smooth.std() + 8 * smooth / smooth.std()
    return (127.5 + smooth).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)


@pytest.mark.parametrize("image_size_px", [24, 64, 100])
def test_a_photograph_like_jpeg_differs_by_less_than_one_level(image_size_px):
    photograph = detailed(350, 250)
    for progressive in (False, True):
        data = encoded(photograph, "JPEG", quality=90, progressive=progressive)
        assert difference(data, Preprocessing(image_size_px, 0.875)).mean() < 1


def test_large_pngs_are_averaged_first_without_a_visible_difference():
    assert difference(encoded(scene(1203, 907), "PNG"), Preprocessing(32, 0.875)).mean() < 0.5


def test_it_tells_the_size_of_the_whole_picture_upright():
    pixels, width_px, height_px = evaluation_pixels(jpeg_bytes(200, 90, orientation=6), Preprocessing(24))
    assert (width_px, height_px) == (90, 200)
    assert pixels.shape == (24, 24, 3)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous


def test_the_pixel_limit_reaches_the_decoder():
    with pytest.raises(TooLargeError):
        evaluation_pixels(jpeg_bytes(200, 90), Preprocessing(24), max_pixels=200 * 90 - 1)


def test_the_same_bytes_give_the_same_pixels_in_every_thread():
    from concurrent.futures import ThreadPoolExecutor

    data = [jpeg_bytes(150 + index % 5, 100, seed=index) for index in range(24)]
    alone = [evaluation_pixels(item, Preprocessing(32, 0.875))[0] for item in data]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda item: evaluation_pixels(item, Preprocessing(32, 0.875))[0], data))
    assert all(np.array_equal(one, other) for one, other in zip(alone, together, strict=True))


def test_preprocessing_survives_json():
    preprocessing = Preprocessing(224, 0.95, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    assert Preprocessing.from_json(json.loads(json.dumps(preprocessing.to_json()))) == preprocessing


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"image_size_px": 0}, "image_size_px"),
        ({"crop_fraction": 1.5}, "crop_fraction"),
        ({"std": [0.2, 0.2]}, "three numbers"),
        ({"std": [0.2, 0.2, 0.0]}, "positive"),
        ({"mean": None}, "preprocessing"),
        ({"rotate": 3}, "unknown fields"),
    ],
)
def test_damaged_preprocessing_is_a_bundle_error(change, words):
    with pytest.raises(BundleError, match=words):
        Preprocessing.from_json({**Preprocessing(32).to_json(), **change})


def test_a_missing_field_of_preprocessing_is_named():
    with pytest.raises(BundleError, match="'std'"):
        Preprocessing.from_json({"image_size_px": 32, "crop_fraction": 1.0, "mean": [0, 0, 0]})


def test_networks_that_share_a_picture_see_what_each_would_see_alone(monkeypatch):
    data = jpeg_bytes(900, 700)
    wanted = [
        Preprocessing(48, 0.875),
        Preprocessing(224),
        Preprocessing(48, 0.875, mean=(0.5, 0.5, 0.5)),
        Preprocessing(56),
    ]
    alone = [evaluation_pixels(data, one)[0] for one in wanted]
    scales, read = [], decode.read_jpeg
    monkeypatch.setattr(decode, "read_jpeg", lambda *arguments: (scales.append(arguments[2]), read(*arguments))[1])
    views, width_px, height_px = evaluation_views(data, wanted)
    assert (width_px, height_px) == (900, 700)
    for view, own in zip(views, alone, strict=True):
        np.testing.assert_array_equal(view, own)
    assert len(scales) == len(set(scales)) < len(wanted)  # each scale is decoded once
