"""What an earlier labelmill began or finished: it knew one way to split, the one that is called stratified now."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import save_file

import labelmill.train
from bundles import make_draft
from labelmill.dataset import TrainingSet, load_training_set, load_training_sets
from labelmill.model.registry import Registry
from labelmill.spec import LoadedSpec, TrainSpec, load_spec
from labelmill.train.progress import Progress, RunFolder
from labelmill.train.training import run_digest
from train.runs import epoch_record, shapes_source
from train.shapes import LABELS, write_labels, write_shapes


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LABELMILL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def loaded_spec(folder: Path, **split: Any) -> LoadedSpec:
    if not (folder / "labels.csv").exists():
        write_labels(folder / "labels.csv", write_shapes(folder / "images", 80))
    shares = {"train": 0.6, "validation": 0.2, "test": 0.2, "seed": 1}
    data = {**shapes_source(folder)["data"], "split": shares | split}
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(shapes_source(folder) | {"data": data}))
    return load_spec(path)


def of_then(loaded: LoadedSpec) -> tuple[TrainingSet, str]:
    """The training set of an earlier labelmill, and its name for the run."""
    assert isinstance(loaded.spec, TrainSpec)
    [training_set] = load_training_sets(loaded.spec, ["stratified"])
    return training_set, run_digest(loaded.source, training_set.fingerprint)


def publish(loaded: LoadedSpec, digest: str) -> None:
    draft = make_draft(Path(loaded.spec.registry).parent / "draft", labels=LABELS)
    numbers = {"map": 0.5, "accuracy": 0.5, "macro_f1": 0.5, "num_pictures": 9}
    draft.metrics.update(run=digest, headline={"name": "map", "value": 0.5, "split": "test"}, test=numbers)
    Registry(loaded.spec.registry).publish("shapes", draft)


def begin(loaded: LoadedSpec, digest: str) -> None:
    """As if killed after its last epoch, before anything was published."""
    draft = make_draft(Path(loaded.spec.registry).parent / "unfinished", labels=LABELS)
    epochs = tuple(epoch_record(number, ((1, 0.5, 1e-3),)) for number in (1, 2))
    folder = RunFolder(f"{loaded.spec.registry}/shapes/runs/{digest[:16]}")
    for reached in (1, 2):
        folder.save(
            Progress(draft.preprocessing, epochs[:reached], unreadable={}),
            lambda path: path.write_bytes((draft.folder / "weights.safetensors").read_bytes()),
            lambda path: save_file({"none": torch.zeros(1)}, path),
        )


def test_a_training_that_was_finished_with_the_splits_of_then_is_not_repeated(tmp_path: Path):
    loaded = loaded_spec(tmp_path)
    publish(loaded, of_then(loaded)[1])
    assert str(labelmill.train.run(loaded)).startswith("nothing to do: this spec and this data gave shapes@1 already")
    named = labelmill.train.run(loaded_spec(tmp_path, way="stratified"))
    assert (named.bundle.version, named.promotion) == (1, None), "the way of then, by its name"


def test_an_unfinished_run_goes_on_with_the_splits_of_then(tmp_path: Path):
    loaded = loaded_spec(tmp_path)
    training_set, digest = of_then(loaded)
    assert training_set.fingerprint != load_training_set(loaded.spec).fingerprint
    begin(loaded, digest)
    bundle = labelmill.train.run(loaded).bundle
    assert bundle.data_fingerprint == training_set.fingerprint
    assert bundle.metrics["run"] == digest
    assert bundle.metrics["num_pictures"]["test"] == len(training_set.test)
    assert "seen.u64" in bundle.files
    assert labelmill.train.run(loaded).promotion is None, "it is finished"


def test_a_spec_that_asks_for_the_new_way_does_not_take_over_a_run_of_the_old_one(tmp_path: Path):
    loaded = loaded_spec(tmp_path, way="hash")
    publish(loaded, of_then(loaded)[1])
    begin(loaded, run_digest(loaded.source, load_training_set(loaded.spec).fingerprint))
    bundle = labelmill.train.run(loaded).bundle
    assert bundle.version == 2
    assert bundle.data_fingerprint == load_training_set(loaded.spec).fingerprint
