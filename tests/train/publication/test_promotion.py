import shutil
from pathlib import Path

import numpy as np
import pytest

from bundles import make_bundle
from labelmill.evaluate.answers import answer, measure
from labelmill.model.bundle import Bundle
from labelmill.model.labeler import Labeler
from labelmill.model.registry import Registry
from labelmill.train.publication.promotion import Promotion, decide_promotion
from train.runs import job_of, shapes_spec
from train.shapes import LABELS


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LABELMILL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def publish(registry: Registry, value: float, labels: tuple[str, ...] = LABELS, seed: int = 0) -> Bundle:
    metrics = {"headline": {"name": "map", "value": value, "split": "test"}}
    return make_bundle(registry.uri, "shapes", labels=labels, seed=seed, metrics=metrics)


def decide(folder: Path, registry: Registry, bundle: Bundle, promote: str) -> Promotion:
    spec = shapes_spec(folder, promote=promote)
    return decide_promotion(spec, registry, bundle, job_of(spec)[1].measured)


def test_never_and_always_mean_what_they_say(tmp_path: Path):
    registry = Registry(str(tmp_path / "registry"))
    bundle = publish(registry, 0.1)
    assert not decide(tmp_path, registry, bundle, "never").promoted
    assert decide(tmp_path, registry, bundle, "always").promoted


def test_the_first_version_is_promoted(tmp_path: Path):
    registry = Registry(str(tmp_path / "registry"))
    assert decide(tmp_path, registry, publish(registry, 0.1), "when_better").promoted


def test_a_current_version_that_nobody_can_name_leaves_things_as_they_are(tmp_path: Path):
    """Deleted, or half a row: the training has published by then, and must not end with an error."""
    registry = Registry(str(tmp_path / "registry"))
    publish(registry, 0.1)
    registry.promote("shapes@1")
    bundle = publish(registry, 0.9)
    (tmp_path / "registry/shapes/aliases/.DS_Store").touch()
    shutil.rmtree(tmp_path / "registry/shapes/1")
    decided = decide(tmp_path, registry, bundle, "when_better")
    assert not decided.promoted
    assert "cannot be compared: shapes@current points to version 1, which is no longer in" in decided.reason
    (tmp_path / "registry/shapes/aliases/current/000002.json").write_text('{"number": 2, "ver')
    decided = decide(tmp_path, registry, bundle, "when_better")
    assert not decided.promoted
    assert "000002.json is not a row of an alias" in decided.reason
    assert decide(tmp_path, registry, bundle, "always").promoted


def test_better_is_measured_on_the_same_pictures_not_read_from_the_old_bundle(tmp_path: Path):
    registry = Registry(str(tmp_path / "registry"))
    current = publish(registry, 0.99)  # what it says of itself, on other pictures
    registry.promote("shapes@1")
    measured = job_of(shapes_spec(tmp_path))[1].measured
    here = measure(current, answer(Labeler(current), measured))["map"]
    assert here < 0.9
    better, tie, worse = (publish(registry, value, seed=1) for value in (here + 0.01, here, here - 0.01))
    assert decide(tmp_path, registry, better, "when_better").promoted
    assert not decide(tmp_path, registry, tie, "when_better").promoted
    refused = decide(tmp_path, registry, worse, "when_better")
    assert not refused.promoted
    assert f"shapes@1 has {here:.4f} on the same pictures" in refused.reason


def test_other_labels_are_not_promoted_and_the_reason_names_them(tmp_path: Path):
    registry = Registry(str(tmp_path / "registry"))
    publish(registry, 0.5, labels=("blue", "green", "yellow"))
    registry.promote("shapes@1")
    refused = decide(tmp_path, registry, publish(registry, 0.9), "when_better")
    assert not refused.promoted
    assert "labels are not those of shapes@1 (new: red; gone: yellow)" in refused.reason


def test_a_damaged_current_version_does_not_stop_the_run(tmp_path: Path):
    registry = Registry(str(tmp_path / "registry"))
    current = publish(registry, 0.5, seed=7)
    registry.promote("shapes@1")
    Path(current.uri, "weights.safetensors").write_bytes(b"overwritten")
    refused = decide(tmp_path, registry, publish(registry, 0.9), "when_better")
    assert not refused.promoted
    assert "damaged" in refused.reason


def test_unreadable_pictures_do_not_shift_answers_to_their_neighbours(tmp_path: Path):
    registry = Registry(str(tmp_path / "registry"))
    labeler = Labeler(publish(registry, 0.99))
    pictures = job_of(shapes_spec(tmp_path))[1].train
    whole = answer(labeler, pictures)
    uris = pictures.uris.to_pylist()
    Path(uris[3]).unlink()
    part = answer(labeler, pictures)
    assert set(part.unreadable) == {uris[3]}
    np.testing.assert_allclose(part.logits, np.delete(whole.logits, 3, axis=0), atol=1e-4)
    assert (part.targets == np.delete(whole.targets, 3, axis=0)).all()
