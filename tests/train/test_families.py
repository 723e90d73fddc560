"""Each family of networks, from its name to labels: build, train two steps, publish, reload, label by both engines."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bundles import spread_answers
from labelmill.model.bundle import WEIGHTS_NAME, Bundle, BundleDraft
from labelmill.model.labeler import Labeler
from labelmill.model.network import build_network, head_names, head_of, save_weights
from labelmill.model.registry import Registry
from labelmill.train.job import Job
from labelmill.train.loop.loop import train
from labelmill.train.loop.starting_point import starting_point
from labelmill.train.loop.state import State
from pictures import jpeg_bytes
from train.runs import shapes_spec, started

long = pytest.mark.long
FAMILIES = [
    # the three that `make test` takes
    ("timm/resnet10t", 32),
    ("timm/mobilenetv3_small_050", 32),
    ("timm/test_vit", 32),
    *(
        pytest.param(architecture, size_px, marks=long)
        for architecture, size_px in [
            ("torchvision/alexnet", 64),
            ("torchvision/vgg11", 32),
            ("timm/vgg11_bn", 32),
            ("torchvision/resnet18", 32),
            ("torchvision/inception_v3", 80),
            ("timm/inception_v3", 80),
            ("torchvision/googlenet", 32),
            ("torchvision/efficientnet_b0", 32),
            ("timm/efficientnet_b0", 32),
            ("torchvision/mobilenet_v2", 32),
            ("timm/mobilenetv2_050", 32),
            ("torchvision/mobilenet_v3_small", 32),
            ("torchvision/squeezenet1_1", 32),
            ("torchvision/vit_b_32", 64),
            ("timm/vit_tiny_patch16_224", 64),
            ("timm/deit_tiny_patch16_224", 64),
            ("timm/deit_tiny_distilled_patch16_224", 64),
            ("torchvision/swin_t", 64),
            ("timm/swin_tiny_patch4_window7_224", 64),
            ("timm/beit_base_patch16_224", 64),
            ("torchvision/convnext_tiny", 32),
            ("timm/convnext_atto", 32),
        ]
    ),
]


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LABELMILL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(("architecture", "image_size_px"), FAMILIES)
def test_a_family_trains_is_published_and_labels_alike_by_both_engines(
    tmp_path: Path, architecture: str, image_size_px: int
):
    state = train_two_steps(tmp_path, architecture, image_size_px)
    bundle = publish(tmp_path, state, architecture, image_size_px)
    assert_both_engines_label_as_the_network(bundle, state)
    assert_labels_keep_their_rows(tmp_path, bundle, state)


def train_two_steps(folder: Path, architecture: str, image_size_px: int) -> State:
    spec = shapes_spec(
        folder,
        num_pictures=30,
        model={"architecture": architecture, "weights": "scratch", "image_size_px": image_size_px},
        # Two steps: the head of some networks begins with zeros, and lets no gradient through in the first one.
        optimize={"epochs": 2, "batch_size": 64, "learning_rate": 1e-3, "warmup_epochs": 0},
        workers={"count": 1},
    )
    course, state = started(spec)
    before = {name: value.clone() for name, value in state.network.named_parameters()}
    train(course, state, lambda state: None)
    # A parameter without a gradient would stop two workers, who wait for each other's.
    assert not [name for name, value in state.network.named_parameters() if value.grad is None]
    moved = [name for name, value in state.network.named_parameters() if not torch.equal(value, before[name])]
    assert len(moved) > len(before) / 2
    return state


def publish(folder: Path, state: State, architecture: str, image_size_px: int) -> Bundle:
    if isinstance(head_of(state.network), torch.nn.Linear):
        # Not by much: two steps leave a deep network's answers so close together that rounding would be spread, too.
        spread_answers(state.network, image_size_px, deviation=0.3, most=10)
    (folder / "draft").mkdir()
    save_weights(state.network, folder / "draft" / WEIGHTS_NAME)
    draft = BundleDraft(
        folder=folder / "draft",
        task="multi_label",
        architecture=architecture,
        labels=("blue", "green", "red"),
        preprocessing=state.progress.preprocessing,
        thresholds=(0.5,) * 3,
        calibration=None,
        metrics={},
        data_fingerprint="0" * 64,
        spec={},
        library_versions={},
    )
    registry = Registry(str(folder / "registry"))
    registry.publish("family", draft)
    return registry.resolve("family@1")


def assert_both_engines_label_as_the_network(bundle: Bundle, state: State):
    images = [jpeg_bytes(80, 60, seed=seed) for seed in range(5)]
    confidences = {
        engine: np.stack(
            [answer.confidences for answer in Labeler(bundle, engine, precision="float32", num_threads=1).label(images)]
        )
        for engine in ("openvino", "torch")
    }
    np.testing.assert_allclose(confidences["openvino"], confidences["torch"], atol=1e-3)
    pixels = torch.rand(2, 3, *(bundle.preprocessing.image_size_px,) * 2)
    again = build_network(bundle.architecture, 3, str(bundle.weights_path()), image_size_px=pixels.shape[-1])
    with torch.no_grad():
        found, expected = again.eval()(pixels), state.network.eval()(pixels)
    np.testing.assert_allclose(found.sigmoid(), expected.sigmoid(), atol=1e-3)


def assert_labels_keep_their_rows(folder: Path, bundle: Bundle, state: State):
    """Training goes on from the version with other labels: those that it knows keep what it learnt of them."""
    model = {"architecture": bundle.architecture, "weights": bundle.reference}
    start = starting_point(Job(shapes_spec(folder, model=model), bundle.labels, ""))
    assert start.preprocessing == bundle.preprocessing
    network = start.build(("amber", "red", "blue", "grey"))
    for name in head_names(network):
        old, new = (each.get_submodule(name).weight for each in (state.network, network))
        assert torch.equal(new[1], old[2]) and torch.equal(new[2], old[0])
        assert not torch.equal(new[0], old[0]) and not torch.equal(new[3], old[1])
    body = {name: value for name, value in network.state_dict().items() if not name.startswith(head_names(network))}
    trained = state.network.state_dict()
    assert body and all(torch.equal(value, trained[name]) for name, value in body.items())
