"""What a training repeats and what it does not, by an approach that needs no Ray."""

import shutil
from pathlib import Path

import pytest
import yaml

import labelmill.train
from bundles import make_draft
from labelmill.model.registry import Registry
from labelmill.spec import load_spec
from labelmill.train import TrainResult
from train.runs import shapes_source
from train.shapes import LABELS, write_labels, write_shapes


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LABELMILL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def test_replaced_weights_and_other_values_are_trained_from_and_nothing_else_is_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    write_labels(tmp_path / "labels.csv", write_shapes(tmp_path / "images", 40))
    source = {key: value for key, value in shapes_source(tmp_path).items() if key not in ("optimize", "workers")}
    model = {"architecture": "${ARCH}", "weights": "start.safetensors", "image_size_px": 32}
    extra = {"approach": "prototype", "model": model, "few_shot": {"views": "${VIEWS}"}, "data": {**source["data"]}}
    Path("train.yaml").write_text(yaml.safe_dump(source | extra | {"promote": "always", "calibration": "none"}))

    def run(seed: int, views: str) -> TrainResult:
        draft = make_draft(tmp_path / f"draft{seed}", labels=LABELS, seed=seed)
        shutil.copy(draft.folder / "weights.safetensors", "start.safetensors")
        environ = {"ARCH": "timm/test_resnet", "VIEWS": views}
        return labelmill.train.run(load_spec("train.yaml", environ=environ))

    first = run(0, "0")
    assert first.bundle.reference == "shapes@1"
    assert first.bundle.spec["model"]["architecture"] == "timm/test_resnet"
    assert first.bundle.spec["few_shot"] == {"views": 0}
    assert "timm/test_resnet" in first.bundle.read_file("report.html").decode()
    assert "${" not in first.bundle.read_file("report.html").decode()
    Path("registry/shapes/aliases/.DS_Store").touch()
    again = run(0, "0")
    assert (again.bundle.reference, again.promotion) == ("shapes@1", None)
    assert run(1, "0").bundle.reference == "shapes@2"
    registry = Registry("registry")
    assert registry.aliases("shapes") == {"current": 2}
    assert not list(registry._store.keys("shapes/runs/"))
