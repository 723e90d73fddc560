from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import labelmill.train
from bundles import make_bundle
from labelmill.errors import SpecError
from labelmill.images.transform import evaluation_pixels
from labelmill.model.bundle import WEIGHTS_NAME
from labelmill.model.engines.torch_engine import PixelsToLogits
from labelmill.model.network import build_network, head_names, save_weights
from labelmill.model.registry import Registry
from labelmill.spec import TrainSpec, load_spec
from labelmill.train.approaches.few_shot import make
from train.runs import job_of, shapes_source, shapes_spec
from train.shapes import write_labels, write_shapes


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LABELMILL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def few_shot_spec(folder: Path, approach: str, architecture: str = "timm/test_resnet", **changes: object) -> TrainSpec:
    make_bundle(folder / "registry", "backbone", architecture=architecture)
    spec = shapes_spec(folder).model_dump(exclude_unset=True, exclude={"optimize", "workers"})
    model = {"architecture": architecture, "weights": "backbone@1"}
    return TrainSpec.model_validate(
        spec
        | {"approach": approach, "model": model, "few_shot": {"views": 2}, "registry": str(folder / "registry")}
        | changes
    )


@pytest.mark.parametrize("approach", ["linear_probe", "prototype"])
def test_only_the_last_layer_changes_and_it_knows_the_labels(tmp_path: Path, approach: str):
    job, training_set = job_of(few_shot_spec(tmp_path, approach))
    candidate = make(job, training_set, tmp_path)
    network = build_network("timm/test_resnet", 3, str(tmp_path / WEIGHTS_NAME), image_size_px=32)
    backbone = Registry(job.spec.registry).resolve("backbone@1")
    assert candidate.preprocessing == backbone.preprocessing
    before = build_network("timm/test_resnet", 3, str(backbone.weights_path()), image_size_px=32).state_dict()
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]) != name.startswith(head_names(network)), name
    pixels = [
        evaluation_pixels(Path(uri).read_bytes(), candidate.preprocessing)[0]
        for uri in training_set.test.uris.to_pylist()
    ]
    with torch.no_grad():
        logits = PixelsToLogits(network, candidate.preprocessing).eval()(torch.from_numpy(np.stack(pixels))).numpy()
    assert ((logits > 0) == training_set.test.targets).mean() > 0.75
    assert candidate.findings[approach]["held_out_loss"]


def test_an_architecture_whose_logits_are_no_linear_function_is_refused(tmp_path: Path):
    architecture = "torchvision/squeezenet1_1"  # a ReLU stands behind its last layer
    weights = tmp_path / "squeezenet.safetensors"
    save_weights(build_network(architecture, 3, image_size_px=32), weights)
    model = {"architecture": architecture, "weights": str(weights), "image_size_px": 32}
    job, training_set = job_of(few_shot_spec(tmp_path, "linear_probe", model=model, few_shot={"views": 0}))
    with pytest.raises(SpecError, match=r"no linear function of the features .* approach: fine_tune"):
        make(job, training_set, tmp_path)


def test_a_damaged_picture_is_left_out_and_named(tmp_path: Path):
    spec = few_shot_spec(tmp_path, "prototype")
    job, training_set = job_of(spec)
    damaged = training_set.train.uris[4].as_py()
    Path(damaged).write_bytes(b"no picture")
    assert set(make(job, training_set, tmp_path).unreadable) == {damaged}


@pytest.mark.long
@pytest.mark.parametrize("approach", ["linear_probe", "prototype"])
def test_few_pictures_end_in_an_ordinary_version(tmp_path: Path, approach: str):
    write_labels(tmp_path / "labels.csv", write_shapes(tmp_path / "images", 60))
    make_bundle(tmp_path / "registry", "backbone", labels=("a", "b"), architecture="timm/resnet10t")
    source = {name: value for name, value in shapes_source(tmp_path).items() if name not in ("optimize", "workers")}
    model = {"architecture": "timm/resnet10t", "weights": "backbone@1"}
    spec = source | {"approach": approach, "model": model}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(spec))
    loaded = load_spec(str(tmp_path / "train.yaml"))
    result = labelmill.train.run(loaded)
    assert result.bundle.reference == "shapes@1" and result.bundle.labels == ("blue", "green", "red")
    assert result.bundle.metrics["test"]["map"] > 0.75
    assert result.bundle.metrics["findings"][approach]
    assert labelmill.train.run(loaded).promotion is None
