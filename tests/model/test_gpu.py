"""What a GPU decodes and computes. Where torch finds none, the geometry is checked on the CPU, and the rest is skipped:
`PYTHONPATH=platform:tests python -m pytest --noconftest tests/model/test_gpu.py` on a machine that has one."""

import io
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

import damaged
from bundles import make_bundle
from labelmill.images.screen import size_for_gpu
from labelmill.images.transform import Preprocessing, evaluation_pixels
from labelmill.model.engines import gpu_decoder, torch_engine
from labelmill.model.engines.torch_engine import TorchEngine
from labelmill.model.labeler import Labeler
from pictures import jpeg_bytes, png_bytes

ON_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
PREPROCESSING = Preprocessing(64, 0.875)
MEAN_DIFFERENCE = 2.0 if torch.cuda.is_available() else 0.6  # nvJPEG spreads colours otherwise than turbo
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")


def decoded(images):
    joined = np.frombuffer(b"".join(images), np.uint8)
    return gpu_decoder.decode(joined, [len(image) for image in images], DEVICE)


@pytest.mark.parametrize("size", [(120, 90), (90, 120), (100, 100), (73, 73), (131, 77), (60, 41)])
@pytest.mark.parametrize("preprocessing", [Preprocessing(64, 0.875), Preprocessing(64), Preprocessing(96, 0.95)])
def test_the_network_sees_what_it_sees_of_pictures_decoded_on_the_cores(size, preprocessing):
    images = [jpeg_bytes(*size, seed=seed, quality=95) for seed in range(3)]
    for image, view in zip(images, gpu_decoder.views(decoded(images), preprocessing), strict=True):
        assert size_for_gpu(image, [preprocessing], max_pixels=10**6) == size
        expected = evaluation_pixels(image, preprocessing)[0]
        assert view.shape == expected.shape and view.dtype == torch.uint8
        difference = np.abs(view.cpu().numpy().astype(int) - expected)
        assert difference.mean() < MEAN_DIFFERENCE and difference.max() <= 12


def test_pictures_of_other_sizes_keep_their_places():
    sizes = [(90, 90), (120, 90), (90, 90), (90, 120)] * 20
    images = [jpeg_bytes(*size, seed=seed) for seed, size in enumerate(sizes)]
    together = gpu_decoder.views(decoded(images), PREPROCESSING)
    for image, view in zip(images, together, strict=True):
        [alone] = gpu_decoder.views(decoded([image]), PREPROCESSING)
        assert (alone.int() - view.int()).abs().max() <= 1


def left_to_the_cores():
    image = jpeg_bytes(120, 90)
    scan = image.index(b"\xff\xda")
    gray = io.BytesIO()
    Image.new("L", (90, 90)).save(gray, "JPEG")
    return {
        "nothing": b"",
        "no picture": b"no picture at all",
        "png": png_bytes(90, 90),
        "gray": gray.getvalue(),
        "progressive": jpeg_bytes(120, 90, progressive=True),
        "on its side": jpeg_bytes(120, 90, orientation=6),
        "large enough for half the scale": jpeg_bytes(800, 600),
        "over the limit": jpeg_bytes(1010, 1000),
        "cut off": image[: len(image) * 2 // 3],
        "cut off and closed": image[: len(image) * 2 // 3] + b"\xff\xd9\0\0",
        "with a hole in it": image[: scan + 60] + bytes(40) + image[scan + 100 :],
        "another header in the scan": image[: scan + 60] + image[:scan] + image[scan + 60 :],
        "two pictures": image + image,
        "no scan": image[: scan + 14] + b"\xff\xd9",
        "a scan too short for its pixels": image[: scan + 34] + b"\xff\xd9",
        "garbage before the scan": image[:scan] + b"\0" + image[scan:],
    }


@pytest.mark.parametrize("kind", left_to_the_cores())
def test_what_a_gpu_decodes_otherwise_is_left_to_the_cores(kind):
    assert size_for_gpu(jpeg_bytes(120, 90), [PREPROCESSING], max_pixels=10**6) == (120, 90)
    assert size_for_gpu(left_to_the_cores()[kind], [PREPROCESSING], max_pixels=10**6) is None


def test_no_damage_makes_the_screen_fail_instead_of_leaving_a_picture_to_the_cores():
    taken = [size_for_gpu(data, [PREPROCESSING], max_pixels=10**6) for _, data in damaged.damaged(1, 2000)]
    assert 0 < sum(size is not None for size in taken) < 2000 / 10


def test_a_picture_that_cannot_be_decoded_is_no_pixels():
    assert decoded([jpeg_bytes(120, 90), b"\xff\xd8\xff no picture"]) is None


@pytest.fixture
def on_both(tmp_path, monkeypatch):
    """The same bundle on the GPU, and on the CPU in float32."""
    bundle = make_bundle(tmp_path, architecture="timm/resnet18", image_size_px=64)
    on_gpu = Labeler(bundle, "torch", decode_threads=2, embeddings=True)
    with monkeypatch.context() as patch:
        patch.setattr(torch.cuda, "is_available", lambda: False)
        on_cpu = Labeler(bundle, "torch", embeddings=True)
    assert (on_gpu.precision, on_cpu.precision) == ("bfloat16", "float32")
    return on_gpu, on_cpu


@ON_GPU
def test_answers_of_the_gpu_are_those_of_the_cpu(on_both):
    images = [jpeg_bytes(120 + seed % 3, 90, seed=seed) for seed in range(70)]
    images[5:5] = [b"", png_bytes(90, 90, seed=5), jpeg_bytes(120, 90, orientation=6, seed=6), jpeg_bytes(800, 600)]
    by_gpu, by_cpu = (labeler.label(images) for labeler in on_both)
    assert [answer.status for answer in by_gpu] == [answer.status for answer in by_cpu]
    for one, other in zip(by_gpu, by_cpu, strict=True):
        assert (one.error, one.width_px, one.height_px) == (other.error, other.width_px, other.height_px)
        if other.confidences is not None:
            np.testing.assert_allclose(one.confidences, other.confidences, atol=5e-2)
            assert one.embedding.dtype == np.float16 and one.embedding.shape == other.embedding.shape
    seen = np.stack([answer.confidences for answer in by_cpu if answer.confidences is not None])
    assert np.ptp(seen, axis=0).min() > 0.1  # else one answer could stand for another


@ON_GPU
@pytest.mark.parametrize("count", [1, 2, 3, 31, 32, 33, 100])
def test_any_number_of_pictures_is_answered_as_each_alone(on_both, count):
    engine = on_both[0]._engine
    pixels = np.random.default_rng(count).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
    together = engine.forward(pixels)[0]
    alone = np.concatenate([engine.forward(pixels[row : row + 1])[0] for row in range(count)])
    assert together.shape == (count, 3)
    np.testing.assert_allclose(together, alone, atol=torch_engine.TOLERANCE * np.abs(alone).max())


@ON_GPU
def test_a_batch_that_does_not_fit_is_halved_until_it_does(on_both, monkeypatch):
    engine, compute, refused = on_both[0]._engine, TorchEngine._compute, []

    def small_gpu(self, pixels):
        if len(pixels) > 16:
            refused.append(len(pixels))
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compute(self, pixels)

    pixels = np.random.default_rng(0).integers(0, 256, (50, 64, 64, 3), dtype=np.uint8)
    expected = engine.forward(pixels)[0]
    engine._graphs._recorded.clear()
    monkeypatch.setattr(engine._graphs, "_compute", lambda pixels: small_gpu(engine, pixels))
    np.testing.assert_allclose(
        engine.forward(pixels)[0], expected, atol=torch_engine.TOLERANCE * np.abs(expected).max()
    )
    assert refused == [64, 32]
    assert engine._largest == 16


@ON_GPU
def test_threads_that_share_a_gpu_get_their_own_answers(on_both):
    batches = [[jpeg_bytes(120, 90, seed=seed) for seed in range(start, start + 9)] for start in range(0, 90, 9)]
    alone = [[answer.confidences for answer in on_both[0].label(batch)] for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        for together in pool.map(lambda _: [on_both[0].label(batch) for batch in batches], range(8)):
            for found, expected in zip(together, alone, strict=True):
                np.testing.assert_allclose([answer.confidences for answer in found], expected, atol=1e-2)


@ON_GPU
def test_a_network_that_bfloat16_changes_computes_in_float32(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(torch_engine, "TOLERANCE", 1e-9)
    labeler = Labeler(make_bundle(tmp_path), "torch")
    assert labeler.precision == "float32"
    assert "computes in float32" in caplog.text


@ON_GPU
def test_damaged_pictures_get_the_status_that_the_cores_give_them(on_both):
    corpus = [data for _, data in damaged.damaged(1, 960)]
    by_gpu, by_cpu = ([answer.status for answer in labeler.label(corpus)] for labeler in on_both)
    assert len(set(by_cpu)) >= 3
    assert by_gpu == by_cpu
