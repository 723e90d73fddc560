from pathlib import Path

import numpy as np
import pytest
import torch

from labelmill.errors import DataError
from labelmill.images.resize import resize_all
from labelmill.images.transform import Preprocessing
from labelmill.model.network import build_network
from labelmill.train.feed.resizing import resize_by_torch
from labelmill.train.feed.resolution import check_sides, training_side_px
from labelmill.train.loop.loop import to_device
from pictures import scene
from train.runs import shapes_spec, started

CPU = torch.device("cpu")


def growing(folder: Path, architecture: str = "timm/test_resnet", image_size_px: int = 32, epochs: int = 4):
    return shapes_spec(
        folder,
        augment={"start_size": 0.5},
        model={"architecture": architecture, "weights": "scratch", "image_size_px": image_size_px},
        optimize={"epochs": epochs, "batch_size": 8, "learning_rate": 1e-3},
    )


@pytest.mark.parametrize(
    ("full_px", "epochs", "sides"),
    [
        (224, 8, [128, 128, 160, 160, 192, 192, 224, 224]),
        (224, 2, [128, 224]),
        (32, 4, [16, 24, 24, 32]),
    ],
)
def test_pictures_grow_in_steps_and_the_last_epochs_are_whole(tmp_path, full_px, epochs, sides):
    spec = growing(tmp_path, epochs=epochs)
    assert [training_side_px(spec, full_px, epoch) for epoch in range(1, epochs + 1)] == sides


def test_without_start_size_every_epoch_is_whole(tmp_path):
    spec = shapes_spec(tmp_path)
    assert [training_side_px(spec, 224, epoch) for epoch in (1, 2)] == [224, 224]


def test_training_pictures_grow_and_validation_pictures_do_not(tmp_path):
    spec = growing(tmp_path)
    course, state = started(spec)
    feed = course.feed
    check_sides(spec, state.network, 32, CPU)
    assert [next(feed.training_batches(epoch))[0].shape[1:3] for epoch in (1, 2, 4)] == [(16, 16), (24, 24), (32, 32)]
    assert next(feed.validation_batches())[0].shape[1:3] == (32, 32)


def test_a_network_of_one_size_is_refused_before_training(tmp_path):
    spec = growing(tmp_path, "timm/deit_tiny_patch16_224", 64)
    network = build_network("timm/deit_tiny_patch16_224", 3, "scratch", image_size_px=64)
    with pytest.raises(
        DataError, match=r"begins with pictures of 32 px, and timm/deit_tiny_patch16_224 takes none but 64 px"
    ):
        check_sides(spec, network, 64, CPU)
    assert network.training


def test_torch_resizes_as_the_labeler_does():
    pixels = scene(301, 190, seed=3)
    for part in (pixels, pixels[7:150, 20:290], pixels[::-1], pixels.transpose(1, 0, 2)):
        found, expected = resize_by_torch(part, 64), resize_all(part, 64)
        assert (found.shape, found.dtype, found.flags.c_contiguous) == ((64, 64, 3), np.uint8, True)
        assert np.abs(found.astype(int) - expected).mean() < 0.5
        assert np.abs(found.astype(int) - expected).max() <= 3


def test_the_device_gets_normalised_pixels_channels_last():
    preprocessing = Preprocessing(8, 1.0, (0.1, 0.5, 0.9), (0.2, 0.3, 0.4))
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), dtype=np.uint8)
    found, _ = to_device((pixels, np.zeros((2, 1), dtype=np.float32)), preprocessing, CPU)
    expected = (pixels / 255 - np.array(preprocessing.mean)) / np.array(preprocessing.std)
    np.testing.assert_allclose(found.numpy(), expected.transpose(0, 3, 1, 2), rtol=1e-4, atol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)
