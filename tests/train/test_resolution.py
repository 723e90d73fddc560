from pathlib import Path

import pytest
import torch

from labelmill.errors import DataError
from labelmill.model.network import build_network
from labelmill.train.resolution import check_sides, training_side_px
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
    spec = growing(tmp_path, "timm/test_vit", 64)
    network = build_network("timm/test_vit", 3, "scratch", image_size_px=64)
    with pytest.raises(DataError, match=r"begins with pictures of 32 px, and timm/test_vit takes none but 64 px"):
        check_sides(spec, network, 64, CPU)
    assert network.training
