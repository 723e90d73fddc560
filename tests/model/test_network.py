import importlib.metadata
import re
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from labelmill.errors import BundleError, SpecError, UnavailableError
from labelmill.model.network import (
    architecture_names,
    build_network,
    default_preprocessing,
    load_weights,
    save_weights,
)


@pytest.mark.parametrize(
    ("architecture", "image_size_px"),
    [
        ("timm/test_resnet", 32),
        ("timm/test_vit", 48),
        ("timm/test_efficientnet", 32),
        ("timm/resnet10t.c3_in1k", 32),
        ("torchvision/resnet18", 32),
        ("torchvision/squeezenet1_1", 32),
        ("torchvision/googlenet", 32),
        ("torchvision/inception_v3", 75),
        ("torchvision/vit_b_32", 64),
    ],
)
def test_one_call_gives_one_tensor_with_the_right_number_of_logits(architecture, image_size_px):
    network = build_network(architecture, 5, image_size_px=image_size_px)
    assert network.training
    out = network(torch.zeros(2, 3, image_size_px, image_size_px))
    assert isinstance(out, torch.Tensor)
    assert out.shape == (2, 5)


def test_building_leaves_statistics_untouched():
    torch.manual_seed(0)
    network = build_network("timm/test_resnet", 2, image_size_px=32)
    assert all(int(value) == 0 for name, value in network.state_dict().items() if name.endswith("num_batches_tracked"))


@pytest.mark.parametrize(
    ("architecture", "near"),
    [
        ("timm/resnet10tt", "timm/resnet10t"),
        ("torchvision/resnet19", "torchvision/resnet18"),
        ("torchvison/resnet18", "torchvision/resnet18"),
        ("timm/resnet18.nonsense", "timm/resnet18"),
        ("resnet18", "timm/"),
        ("timm/qwen3_vit_88m_enc", "classifier"),
        ("torchvision/fasterrcnn_resnet50_fpn", "torchvision/"),
    ],
)
def test_unknown_architecture_names_near_misses(architecture, near):
    with pytest.raises(SpecError, match=re.escape(near)):
        build_network(architecture, 2)


@pytest.mark.parametrize(
    ("architecture", "image_size_px"), [("timm/test_vit", 33), ("torchvision/inception_v3", 32), ("timm/resnet10t", -4)]
)
def test_size_the_architecture_cannot_take_is_said_with_its_own_size(architecture, image_size_px):
    own = default_preprocessing(architecture).image_size_px
    with pytest.raises(SpecError, match=rf"cannot take pictures of {image_size_px} x .* own size is {own} px"):
        build_network(architecture, 2, image_size_px=image_size_px)


def test_preprocessing_is_the_architectures_own():
    assert default_preprocessing("timm/resnet10t").image_size_px == 176
    vit = default_preprocessing("timm/test_vit", 48)
    assert (vit.image_size_px, vit.crop_fraction, vit.mean) == (48, 0.95, (0.5, 0.5, 0.5))
    resnet = default_preprocessing("torchvision/resnet18")
    assert (resnet.image_size_px, resnet.crop_fraction) == (224, 224 / 256)
    assert resnet.std == (0.229, 0.224, 0.225)
    assert default_preprocessing("torchvision/inception_v3").image_size_px == 299


def test_weights_come_back_and_do_not_fit_another_network(tmp_path):
    network = build_network("timm/test_resnet", 3, image_size_px=32).eval()
    save_weights(network, tmp_path / "w.safetensors")
    again = build_network("timm/test_resnet", 3, image_size_px=32).eval()
    load_weights(again, tmp_path / "w.safetensors")
    pixels = torch.randn(2, 3, 32, 32)
    assert torch.equal(network(pixels), again(pixels))
    for other in (build_network("timm/test_resnet", 4, image_size_px=32), build_network("timm/test_vit", 3)):
        with pytest.raises(BundleError, match="does not fit"):
            load_weights(other, tmp_path / "w.safetensors")
    (tmp_path / "w.safetensors").write_bytes(b"\x80\x04nothing")
    with pytest.raises(BundleError, match=r"w\.safetensors"):
        load_weights(again, tmp_path / "w.safetensors")


@pytest.mark.parametrize("architecture", ["timm/test_resnet", "timm/test_vit", "torchvision/squeezenet1_1"])
def test_training_goes_on_from_a_file_and_the_head_is_kept_where_it_fits(tmp_path, architecture):
    path = str(tmp_path / "w.safetensors")
    first = build_network(architecture, 3, image_size_px=32)
    save_weights(first, path)
    same = build_network(architecture, 3, path, image_size_px=32)
    assert all(torch.equal(value, same.state_dict()[name]) for name, value in first.state_dict().items())
    other = build_network(architecture, 7, path, image_size_px=32).state_dict()
    differing = [name for name, value in first.state_dict().items() if not torch.equal(value, other[name])]
    assert differing and len({name.rpartition(".")[0] for name in differing}) == 1


def test_position_embeddings_fit_another_size(tmp_path):
    save_weights(build_network("timm/test_vit", 3, image_size_px=32), tmp_path / "w.safetensors")
    network = build_network("timm/test_vit", 3, str(tmp_path / "w.safetensors"), image_size_px=64)
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


def test_weights_that_do_not_fit_or_cannot_be_read_are_one_clear_error(tmp_path):
    save_file({"nothing": torch.zeros(1)}, tmp_path / "other.safetensors")
    (tmp_path / "damaged.safetensors").write_bytes(b"\x80\x04nothing")
    for architecture in ("timm/test_resnet", "torchvision/resnet18"):
        with pytest.raises(SpecError, match="do not fit"):
            build_network(architecture, 3, str(tmp_path / "other.safetensors"), image_size_px=32)
        with pytest.raises(SpecError, match="cannot be read"):
            build_network(architecture, 3, str(tmp_path / "damaged.safetensors"), image_size_px=32)
        with pytest.raises(SpecError, match="cannot be read"):
            build_network(architecture, 3, str(tmp_path / "missing.safetensors"), image_size_px=32)
        with pytest.raises(SpecError, match="may run code"):
            build_network(architecture, 3, "weights.pth", image_size_px=32)


def test_pretrained_offline_says_what_could_not_be_fetched_and_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with pytest.raises(UnavailableError, match=r"timm/resnet10t .*huggingface.co/timm/resnet10t\S* .*safetensors"):
        build_network("timm/resnet10t", 3, "pretrained", image_size_px=32)
    with pytest.raises(UnavailableError, match=r"torchvision/resnet18 .*download.pytorch.org\S* .*safetensors"):
        build_network("torchvision/resnet18", 3, "pretrained", image_size_px=32)


def test_architecture_without_pretrained_weights_says_so():
    with pytest.raises(SpecError, match="no pretrained weights"):
        build_network("timm/darknet17", 2, "pretrained")


def test_shipped_list_of_architectures_is_that_of_the_locked_libraries():
    """Another timm than the locked one may know more or other names; the shipped list then needs no judgement."""
    shipped = files("labelmill.spec").joinpath("architectures.txt").read_text("utf-8").split()
    lock = Path(__file__).parents[2].joinpath("requirements.lock").read_text("utf-8")
    locked = {name: re.search(rf"^{name}==([^ ;]+)", lock, re.M)[1] for name in ("timm", "torchvision")}
    if all(importlib.metadata.version(name).split("+")[0] == version for name, version in locked.items()):
        assert shipped == architecture_names()
    assert len(shipped) == len(set(shipped)) > 1000
