"""Models made of published ones, from the spec to the published version."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file

import labelmill.train
from bundles import make_bundle, make_draft
from labelmill.errors import BundleError, DataError, SpecError
from labelmill.images.transform import Preprocessing, evaluation_pixels
from labelmill.model.engines.graphs import faster_engine
from labelmill.model.engines.torch_engine import PixelsToLogits
from labelmill.model.labeler import Labeler
from labelmill.model.quantized import INT8_GRAPH, INT8_WEIGHTS, is_quantized
from labelmill.model.registry import Registry
from labelmill.spec import TrainSpec, load_spec
from labelmill.train import TrainResult
from labelmill.train.approaches.average import average_states, renew_statistics
from labelmill.train.candidate import make_candidate
from labelmill.train.training import run_digest
from train.published import trained_bundle
from train.runs import job_of, shapes_source
from train.shapes import LABELS, write_labels, write_shapes


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LABELMILL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def source(folder: Path, approach: str, **blocks: object) -> dict[str, object]:
    trained_by = ("model", "optimize", "workers")
    kept = {key: value for key, value in shapes_source(folder).items() if key not in trained_by}
    return kept | {"approach": approach} | blocks


def run(folder: Path, approach: str, **blocks: object) -> TrainResult:
    path = folder / f"{approach}.yaml"
    path.write_text(yaml.safe_dump(source(folder, approach, **blocks)))
    return labelmill.train.run(load_spec(path))


def make(folder: Path, approach: str, **blocks: object) -> None:
    """The approach alone, for what it refuses."""
    write_labels(folder / "labels.csv", write_shapes(folder / "images", 30))
    (folder / "draft").mkdir()
    make_candidate(*job_of(TrainSpec.model_validate(source(folder, approach, **blocks))), folder / "draft")


def test_a_model_that_answers_another_question_is_refused(tmp_path: Path):
    make_bundle(tmp_path / "registry", "shapes", labels=LABELS)
    make_bundle(tmp_path / "registry", "colours", labels=("black", "white"))
    make_bundle(tmp_path / "registry", "one", task="multi_class", labels=LABELS)
    with pytest.raises(DataError, match=r"colours@1 knows the labels black, white, and .* have blue, green, red"):
        make(tmp_path, "ensemble", ensemble={"models": ["shapes@1", "colours@1"]})
    shutil.rmtree(tmp_path / "draft")
    with pytest.raises(DataError, match=r"one@1 answers task multi_class, and this spec has task multi_label"):
        make(tmp_path, "average", average={"models": ["shapes@1", "one@1"]})


def test_networks_that_differ_are_not_averaged(tmp_path: Path):
    for architecture in ("timm/test_resnet", "timm/test_vit"):
        make_bundle(tmp_path / "registry", "shapes", labels=LABELS, architecture=architecture)
    with pytest.raises(SpecError, match=r"shapes@1 and shapes@2 differ in their architecture.*approach: ensemble"):
        make(tmp_path, "average", average={"models": ["shapes@1", "shapes@2"]})


def test_what_is_in_integers_already_is_not_quantized_again(tmp_path: Path):
    draft = make_draft(tmp_path / "int8", labels=LABELS)
    (draft.folder / INT8_GRAPH).parent.mkdir()
    (draft.folder / INT8_GRAPH).write_text("a graph")
    Registry(str(tmp_path / "registry")).publish("shapes", draft)
    with pytest.raises(SpecError, match=r"shapes@1 is in 8-bit integers already"):
        make(tmp_path, "quantize", quantize={"model": "shapes@1"})


def test_another_bound_is_the_same_run(tmp_path: Path):
    strict, lax = (source(tmp_path, "quantize", quantize={"model": "a@1", "max_accuracy_loss": x}) for x in (0.0, 0.5))
    other = source(tmp_path, "quantize", quantize={"model": "a@2", "max_accuracy_loss": 0.0})
    assert run_digest(strict, "data") == run_digest(lax, "data") != run_digest(other, "data")


def test_weights_are_averaged_and_counts_are_not():
    states = [{"weight": torch.tensor([1.0, 2.0]), "num_batches": torch.tensor(n)} for n in (3, 9)]
    states[1]["weight"] = torch.tensor([3.0, 6.0])
    mean = average_states(states)
    torch.testing.assert_close(mean["weight"], torch.tensor([2.0, 4.0]))
    assert mean["num_batches"] == 3


def test_running_statistics_are_taken_anew_over_the_given_pictures():
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(3), torch.nn.Flatten(), torch.nn.Linear(48, 2))
    network[0].running_mean.fill_(7)
    preprocessing = Preprocessing(4, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    pixels = np.random.default_rng(0).integers(0, 256, (130, 4, 4, 3), dtype=np.uint8)
    renew_statistics(PixelsToLogits(network, preprocessing).eval(), pixels)
    batches = [pixels[start : start + 64] / 255 for start in (0, 64, 128)]
    expected = np.mean([batch.mean(axis=(0, 1, 2)) for batch in batches], axis=0)
    torch.testing.assert_close(network[0].running_mean.double(), torch.tensor(expected), atol=1e-5, rtol=0)
    assert (network[0].momentum, network[0].training) == (0.1, False)


@pytest.mark.long
def test_a_quantized_model_is_a_version_that_answers_in_integers(tmp_path: Path):
    whole = trained_bundle(tmp_path)
    result = run(tmp_path, "quantize", quantize={"model": "shapes@1", "num_pictures": 64, "max_accuracy_loss": 0.05})
    bundle = result.bundle
    assert bundle.reference == "shapes@2"
    found = bundle.metrics["findings"]["quantize"]
    assert (found["model"], found["metric"], found["num_calibration_pictures"]) == ("shapes@1", "map", 64)
    assert found["after"] == pytest.approx(bundle.metrics["test"]["map"])
    assert found["before"] > 0.6 and abs(found["loss"]) <= 0.05
    assert found["size_bytes_after"] < 0.4 * found["size_bytes_before"]
    assert found["speedup"] == found["pictures_per_s_after"] / found["pictures_per_s_before"]

    assert is_quantized(bundle) and faster_engine(bundle) == "openvino"
    labelers = {engine: Labeler(bundle, engine, precision="float32", num_threads=1) for engine in ("auto", "torch")}
    assert {engine: labeler.precision for engine, labeler in labelers.items()} == {"auto": "int8", "torch": "float32"}
    pictures = sorted((tmp_path / "images").glob("*.jpg"))[:11]
    pixels = np.stack([evaluation_pixels(path.read_bytes(), bundle.preprocessing)[0] for path in pictures])
    by_integers, by_floats = (labeler.confidences(pixels) for labeler in labelers.values())
    assert by_integers.shape == (11, 3) and 0 < np.abs(by_integers - by_floats).mean() < 0.1
    logits = [
        Labeler(one, "torch", precision="float32", num_threads=1)._engine.forward(pixels)[0] for one in (bundle, whole)
    ]
    np.testing.assert_array_equal(*logits)
    features = [
        Labeler(bundle, engine, precision="float32", num_threads=1, embeddings=True)._engine.forward(pixels)[1]
        for engine in ("openvino", "torch")
    ]
    assert features[0].shape == features[1].shape and np.corrcoef(*map(np.ravel, features))[0, 1] > 0.95

    assert run(tmp_path, "quantize", quantize={"model": "shapes@1", "num_pictures": 64}).promotion is None


def test_a_damaged_graph_is_never_used(tmp_path: Path):
    draft = make_draft(tmp_path / "int8", labels=LABELS)
    (draft.folder / INT8_GRAPH).parent.mkdir()
    for name in (INT8_GRAPH, INT8_WEIGHTS):
        (draft.folder / name).write_text(f"{name} as published")
    bundle = Registry(str(tmp_path / "registry")).publish("shapes", draft)
    Path(bundle.uri, INT8_WEIGHTS).write_bytes(b"overwritten")
    with pytest.raises(BundleError, match=r"int8/graph.bin of shapes@1 .* is damaged"):
        Labeler(bundle)


@pytest.mark.long
def test_an_ensemble_is_a_version_like_any_other(tmp_path: Path):
    alone = [trained_bundle(tmp_path, seed=seed) for seed in (0, 1)]
    bundle = run(tmp_path, "ensemble", ensemble={"models": ["shapes@1", "shapes@2"]}).bundle
    assert bundle.architecture == "ensemble:timm/resnet10t+timm/resnet10t"
    found = bundle.metrics["findings"]["ensemble"]
    assert found["members"].keys() == {"shapes@1", "shapes@2"}
    assert bundle.metrics["test"]["map"] > min(found["members"].values())
    pixels = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    labeler = Labeler(bundle, "openvino", precision="float32", num_threads=1)
    raw = labeler._engine.forward(pixels)[0]
    mean = np.mean([Labeler(member, "torch", precision="float32").confidences(pixels) for member in alone], axis=0)
    np.testing.assert_allclose(1 / (1 + np.exp(-raw)), mean, atol=1e-3)
    with pytest.raises(SpecError, match=r"shapes@3 is an ensemble itself; name its members"):
        run(tmp_path, "ensemble", ensemble={"models": ["shapes@1", "shapes@3"]})


@pytest.mark.long
def test_models_of_one_origin_are_averaged_and_strangers_are_left_out(tmp_path: Path):
    trained_bundle(tmp_path)
    for seed in (1, 2):
        trained_bundle(tmp_path, epochs=1, seed=seed, weights="shapes@1")
    trained_bundle(tmp_path, seed=9)
    bundle = run(tmp_path, "average", average={"models": ["shapes@2", "shapes@3"], "recipe": "uniform"}).bundle
    states = [load_file(Path(tmp_path, "registry", "shapes", str(n), "weights.safetensors")) for n in (2, 3, 5)]
    torch.testing.assert_close((states[0]["fc.weight"] + states[1]["fc.weight"]) / 2, states[2]["fc.weight"])
    found = bundle.metrics["findings"]["average"]
    assert found["averaged"] == ["shapes@2", "shapes@3"]
    assert bundle.metrics["validation"]["map"] > min(found["models"].values()) - 0.05
    with pytest.raises(DataError, match=r"no other model helps shapes@\d .*nothing is published"):
        run(tmp_path, "average", average={"models": ["shapes@3", "shapes@4"]})
    assert Registry(str(tmp_path / "registry")).versions("shapes") == [1, 2, 3, 4, 5]


@pytest.mark.long
def test_a_pruned_model_is_trained_again_and_one_that_lost_too_much_is_not_published(tmp_path: Path):
    trained_bundle(tmp_path)
    blocks = {"optimize": {"epochs": 3, "batch_size": 16, "learning_rate": 1e-3}, "workers": {"count": 1}}
    bundle = run(
        tmp_path, "prune", prune={"model": "shapes@1", "share": 0.5, "max_accuracy_loss": 0.1}, **blocks
    ).bundle
    assert bundle.architecture == "pruned-0.5:timm/resnet10t"
    found = bundle.metrics["findings"]["prune"]
    assert found["size_bytes_after"] < 0.7 * found["size_bytes_before"]
    assert bundle.metrics["epochs"] == 3
    pixels = np.random.default_rng(0).integers(0, 256, (9, 32, 32, 3), dtype=np.uint8)
    both = [
        Labeler(bundle, engine, precision="float32", num_threads=1).confidences(pixels)
        for engine in ("openvino", "torch")
    ]
    np.testing.assert_allclose(*both, atol=1e-3)
    blocks["optimize"] = {"epochs": 1, "batch_size": 16, "learning_rate": 1e-7, "warmup_epochs": 0}
    with pytest.raises(DataError, match=r"shapes@1 would lose .*nothing is published. Lower prune.share"):
        run(tmp_path, "prune", prune={"model": "shapes@1", "share": 0.9, "max_accuracy_loss": 0.0}, **blocks)
    assert Registry(str(tmp_path / "registry")).versions("shapes") == [1, 2]
