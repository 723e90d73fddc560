import importlib.metadata
import re
import urllib.request
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from labelmill.errors import BundleError, SpecError, StorageError, UnavailableError
from labelmill.model.architectures import describe_architecture
from labelmill.model.network import (
    architecture_names,
    build_network,
    default_preprocessing,
    head_names,
    head_of,
    load_weights,
    save_weights,
)
from labelmill.spec import architecture_table, find_architectures


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


def test_a_logit_starts_from_the_row_it_is_told(tmp_path):
    path = str(tmp_path / "w.safetensors")
    first = build_network("timm/test_resnet", 3, image_size_px=32)
    save_weights(first, path)
    network = build_network("timm/test_resnet", 3, path, image_size_px=32, head_rows=[2, None, 0])
    old, new = head_of(first).weight, head_of(network).weight
    assert torch.equal(new[0], old[2]) and torch.equal(new[2], old[0])
    assert not any(torch.equal(new[1], row) for row in old)


@pytest.mark.parametrize(
    ("architecture", "names"),
    [
        ("timm/deit_tiny_distilled_patch16_224", ("head", "head_dist")),
        ("timm/resnet10t", ("fc",)),
        ("timm/darknet17", ("head.fc",)),
        ("torchvision/squeezenet1_1", ("classifier.1",)),
        ("torchvision/convnext_tiny", ("classifier.2",)),
    ],
)
def test_the_last_layer_is_known_by_name(architecture, names):
    with torch.device("meta"):
        assert head_names(build_network(architecture, 2)) == names


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


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No way out, and caches of our own."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("LABELMILL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(urllib.request, "_opener", None)  # which is made once, with the proxies of then
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


def place_that_the_error_names(architecture):
    with pytest.raises(UnavailableError) as caught:
        build_network(architecture, 3, "pretrained", image_size_px=32)
    source, place = re.search(
        r"download (\S+) elsewhere and place it here as (\S+); the same spec", str(caught.value)
    ).groups()
    return source, Path(place)


def test_pretrained_offline_names_a_file_and_its_place_and_the_file_is_then_taken(offline):
    source, place = place_that_the_error_names("timm/test_resnet")
    assert re.fullmatch(r"https://huggingface.co/timm/test_resnet\.\w+/resolve/main/model.safetensors", source)
    place.parent.mkdir(parents=True)
    given = build_network("timm/test_resnet", 1000)
    save_weights(given, place)
    assert_body_is_that_of(given, build_network("timm/test_resnet", 3, "pretrained", image_size_px=32))
    save_weights(build_network("timm/test_vit", 3), place)
    with pytest.raises(SpecError, match=r"test_resnet\.\w+\.safetensors' do not fit timm/test_resnet"):
        build_network("timm/test_resnet", 3, "pretrained", image_size_px=32)


def test_a_hub_that_cannot_keep_anything_names_its_setting(offline, tmp_path, monkeypatch):
    (tmp_path / "torch").write_text("no folder")
    with pytest.raises(StorageError, match=r"squeezenet1_1 cannot be kept on this machine.*TORCH_HOME"):
        build_network("torchvision/squeezenet1_1", 3, "pretrained", image_size_px=32)


def test_torchvisions_weights_are_taken_from_the_place_of_torchs_own_hub(offline):
    source, place = place_that_the_error_names("torchvision/squeezenet1_1")
    assert source.startswith("https://download.pytorch.org/models/squeezenet1_1-")
    assert place.name == source.rpartition("/")[2]
    place.parent.mkdir(parents=True, exist_ok=True)
    given = build_network("torchvision/squeezenet1_1", 1000)
    torch.save(given.state_dict(), place)
    assert_body_is_that_of(given, build_network("torchvision/squeezenet1_1", 3, "pretrained", image_size_px=32))
    place.write_bytes(place.read_bytes()[:1000])
    with pytest.raises(SpecError, match=r"does not hold the pretrained weights of torchvision/squeezenet1_1"):
        build_network("torchvision/squeezenet1_1", 3, "pretrained", image_size_px=32)


def assert_body_is_that_of(given, network):
    state = given.state_dict()
    same = {name: torch.equal(value, state[name]) for name, value in network.state_dict().items()}
    assert {name.rpartition(".")[0] for name, equal in same.items() if not equal} == {*head_names(network)}


def test_architecture_without_pretrained_weights_says_so():
    with pytest.raises(SpecError, match="no pretrained weights"):
        build_network("timm/darknet17", 2, "pretrained")


def test_shipped_list_of_architectures_is_that_of_the_locked_libraries():
    """Another timm than the locked one may know more or other names; the shipped list then needs no judgement."""
    shipped = [row.name for row in architecture_table()]
    lock = Path(__file__).parents[2].joinpath("requirements.lock").read_text("utf-8")
    locked = {name: re.search(rf"^{name}==([^ ;]+)", lock, re.M)[1] for name in ("timm", "torchvision")}
    if all(importlib.metadata.version(name).split("+")[0] == version for name, version in locked.items()):
        how = "python -m labelmill.model.architectures > platform/labelmill/spec/train/architectures.csv"
        assert shipped == architecture_names(), f"run: {how}"
    assert len(shipped) == len(set(shipped)) > 1000


@pytest.mark.parametrize(
    "architecture", ["timm/resnet10t", "timm/deit_tiny_patch16_224", "torchvision/squeezenet1_1", "torchvision/swin_t"]
)
def test_the_table_says_what_counting_gives(architecture):
    assert describe_architecture(architecture) in architecture_table()


def test_the_table_agrees_with_what_the_libraries_publish():
    rows = {row.name: row for row in architecture_table()}
    for name, num_parameters, multiply_adds in [
        ("torchvision/resnet50", 25_557_032, 4.089e9),
        ("torchvision/vgg16", 138_357_544, 15.47e9),
        ("torchvision/swin_t", 28_288_354, 4.491e9),
        ("timm/vit_tiny_patch16_224", 5_717_416, 1.26e9),
    ]:
        assert rows[name].num_parameters == num_parameters
        assert rows[name].num_multiply_adds == pytest.approx(multiply_adds, rel=0.02)


def test_architectures_are_found_by_word_size_and_cost():
    found = find_architectures("mobilenet", "*small", max_multiply_adds=1e8, pretrained=True)
    assert {"timm/mobilenetv3_small_050", "torchvision/mobilenet_v3_small"} <= {row.name for row in found}
    assert all("mobilenet" in row.name and row.num_multiply_adds <= 1e8 and row.pretrained for row in found)
    assert {row.image_size_px for row in find_architectures("inception", image_size_px=299)} == {299}
    assert max(row.num_parameters for row in find_architectures("resnet", max_parameters=1e7)) <= 1e7
    assert find_architectures("no such thing") == []


@pytest.mark.parametrize(
    ("architecture", "drops"),
    [
        ("timm/test_resnet", {"dropout": 0.5}),
        ("timm/test_vit", {"dropout": 0.5, "drop_path": 0.5}),
        ("torchvision/alexnet", {"dropout": 0.9}),
        ("torchvision/convnext_tiny", {"drop_path": 0.9}),
    ],
)
def test_dropout_makes_training_answers_differ_and_leaves_weights_and_answers_alone(architecture, drops):
    size_px = 64 if architecture.startswith("torchvision") else 48
    torch.manual_seed(0)
    network = build_network(architecture, 3, image_size_px=size_px, **drops)
    pixels = torch.randn(8, 3, size_px, size_px)
    assert not torch.equal(network(pixels), network(pixels))
    plain = build_network(architecture, 3, image_size_px=size_px)
    plain.load_state_dict(network.state_dict())
    torch.testing.assert_close(plain.eval()(pixels), network.eval()(pixels))


def test_dropout_that_a_network_does_not_have_is_refused():
    with pytest.raises(SpecError, match=r"resnet18 has no dropout that can be set: leave model\.dropout out"):
        build_network("torchvision/resnet18", 2, image_size_px=32, dropout=0.1)
