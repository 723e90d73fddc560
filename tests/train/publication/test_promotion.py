import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bundles import make_draft
from labelmill.dataset import seen_in_training, unseen
from labelmill.evaluate.answers import answer, answer_together
from labelmill.model.bundle import WEIGHTS_NAME, Bundle
from labelmill.model.labeler import Labeler
from labelmill.model.registry import Registry
from labelmill.spec import TrainSpec
from labelmill.train.publication.promotion import Promotion, decide_promotion
from labelmill.train.seen import SEEN_NAME, note_seen, seen_by
from train.published import trained_bundle
from train.runs import job_of, shapes_source, shapes_spec
from train.shapes import LABELS, write_labels, write_shapes

SPLIT = {"train": 0.5, "validation": 0.1, "test": 0.4, "seed": 1}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LABELMILL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def spec_of(folder: Path, num_pictures: int = 240, split: dict[str, Any] = SPLIT, **changes: Any) -> TrainSpec:
    data = {**shapes_source(folder)["data"], "split": split}
    return shapes_spec(folder, num_pictures, data=data, **changes)


def publish(spec: TrainSpec, *, weights: Path | None = None, noted: bool = True, **card: Any) -> Bundle:
    """A version that says to be trained as the spec says: with these weights, or with random ones."""
    registry = Registry(spec.registry)
    draft = make_draft(Path(spec.registry).parent / "draft", **{"labels": LABELS, **card})
    if weights:
        shutil.copy(weights, draft.folder / WEIGHTS_NAME)
    if noted:
        note_seen(spec, registry, job_of(spec)[1], draft.folder)
    bundle = registry.publish("shapes", draft)
    shutil.rmtree(draft.folder)
    return bundle


def decide(spec: TrainSpec, bundle: Bundle) -> Promotion:
    return decide_promotion(spec, Registry(spec.registry), bundle, job_of(spec)[1])


@pytest.fixture(scope="module")
def good_weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a network that was trained on shapes."""
    folder = tmp_path_factory.mktemp("good")
    bundle = trained_bundle(folder, epochs=12, architecture="timm/test_resnet")
    return Path(bundle.uri) / WEIGHTS_NAME


def test_never_and_always_mean_what_they_say(tmp_path: Path):
    bundle = publish(spec_of(tmp_path, 60))
    assert not decide(spec_of(tmp_path, promote="never"), bundle).promoted
    assert decide(spec_of(tmp_path, promote="always"), bundle).promoted


def test_the_first_version_is_promoted(tmp_path: Path):
    spec = spec_of(tmp_path, 60)
    assert decide(spec, publish(spec)).promoted


def test_a_current_version_that_nobody_can_name_leaves_things_as_they_are(tmp_path: Path):
    """Deleted, or half a row: the training has published by then, and must not end with an error."""
    spec = spec_of(tmp_path, 60)
    publish(spec)
    registry = Registry(spec.registry)
    registry.promote("shapes@1")
    bundle = publish(spec)
    (tmp_path / "registry/shapes/aliases/.DS_Store").touch()
    shutil.rmtree(tmp_path / "registry/shapes/1")
    decided = decide(spec, bundle)
    assert not decided.promoted
    assert "cannot be compared: shapes@current points to version 1, which is no longer in" in decided.reason
    (tmp_path / "registry/shapes/aliases/current/000002.json").write_text('{"number": 2, "ver')
    decided = decide(spec, bundle)
    assert not decided.promoted
    assert "000002.json is not a row of an alias" in decided.reason
    assert decide(spec_of(tmp_path, 60, promote="always"), bundle).promoted


def test_a_sure_lead_is_promoted_and_neither_a_copy_nor_a_lag(tmp_path: Path, good_weights: Path):
    spec = spec_of(tmp_path)
    registry = Registry(spec.registry)
    bad = publish(spec)
    registry.promote("shapes@1")
    good, copy = publish(spec, weights=good_weights), publish(spec, weights=good_weights)
    promotion = decide(spec, good)
    assert promotion.promoted, promotion.reason
    num_tests = len(job_of(spec)[1].test)
    assert f"on the same {num_tests} test pictures, which neither has seen; a difference of +0." in promotion.reason
    assert "shapes@1 has 0." in promotion.reason
    registry.promote("shapes@2")
    for other in (copy, bad):
        refused = decide(spec, other)
        assert not refused.promoted
        assert "(95 %) is no sure lead" in refused.reason


def test_growth_leaves_all_test_pictures_for_the_comparison(tmp_path: Path):
    write_labels(tmp_path / "labels.csv", dict(list(write_shapes(tmp_path / "images", 110).items())[:100]))
    publish(spec_of(tmp_path))
    Registry(str(tmp_path / "registry")).promote("shapes@1")
    write_labels(tmp_path / "labels.csv", write_shapes(tmp_path / "images", 110))
    spec = spec_of(tmp_path)
    num_tests = len(job_of(spec)[1].test)
    assert f"on the same {num_tests} test pictures" in decide(spec, publish(spec, seed=1)).reason


def test_pictures_that_the_current_version_has_seen_do_not_count(tmp_path: Path):
    publish(spec_of(tmp_path, split={**SPLIT, "seed": 2}))
    Registry(str(tmp_path / "registry")).promote("shapes@1")
    spec = spec_of(tmp_path)
    theirs = set(job_of(spec_of(tmp_path, split={**SPLIT, "seed": 2}))[1].test.uris.to_pylist())
    common = theirs & set(job_of(spec)[1].test.uris.to_pylist())
    assert 10 <= len(common) < 60
    assert f"on the same {len(common)} test pictures" in decide(spec, publish(spec, seed=1)).reason


def test_pictures_that_an_ancestor_has_seen_do_not_count(tmp_path: Path):
    other = spec_of(tmp_path, split={**SPLIT, "seed": 2})
    publish(other)
    model = {"architecture": "timm/test_resnet", "weights": "shapes@1", "image_size_px": 32}
    child = publish(spec_of(tmp_path, model=model), seed=1)
    tests = job_of(spec_of(tmp_path))[1].test
    seen = seen_by(child)
    assert seen is not None
    left = set(tests.take(np.flatnonzero(unseen(tests, str(tmp_path / "images"), seen))).uris.to_pylist())
    assert left == set(tests.uris.to_pylist()) & set(job_of(other)[1].test.uris.to_pylist())


def test_a_version_that_does_not_say_what_it_has_seen_is_not_replaced_silently(tmp_path: Path):
    spec = spec_of(tmp_path)
    publish(spec, noted=False)
    Registry(spec.registry).promote("shapes@1")
    refused = decide(spec, publish(spec, seed=1))
    assert not refused.promoted
    assert "shapes@1 does not say which pictures it has seen" in refused.reason
    assert refused.reason.endswith("By hand: labelmill models promote shapes@2")
    model = {"architecture": "timm/test_resnet", "weights": "shapes@1", "image_size_px": 32}
    assert SEEN_NAME not in publish(spec_of(tmp_path, model=model)).files, "its origin does not say"


def test_too_few_pictures_decide_nothing(tmp_path: Path):
    spec = spec_of(tmp_path, 60, split={"train": 0.8, "validation": 0.1, "test": 0.1, "seed": 1})
    publish(spec)
    Registry(spec.registry).promote("shapes@1")
    refused = decide(spec, publish(spec, seed=1))
    assert not refused.promoted
    num_tests = len(job_of(spec)[1].test)
    assert f"of {num_tests} test pictures {num_tests} were seen by neither, and it takes 10" in refused.reason
    without = spec_of(tmp_path, split={"train": 0.8, "validation": 0.2, "test": 0.0})
    assert "no picture was kept for testing" in decide(without, publish(without)).reason


def test_other_labels_are_not_promoted_and_the_reason_names_them(tmp_path: Path):
    spec = spec_of(tmp_path, 60)
    publish(spec, labels=("blue", "green", "yellow"))
    Registry(spec.registry).promote("shapes@1")
    refused = decide(spec, publish(spec))
    assert not refused.promoted
    assert "labels are not those of shapes@1 (new: red; gone: yellow)" in refused.reason


def test_a_damaged_current_version_does_not_stop_the_run(tmp_path: Path):
    spec = spec_of(tmp_path)
    current = publish(spec, seed=7)
    Registry(spec.registry).promote("shapes@1")
    bundle = publish(spec)
    for name in (WEIGHTS_NAME, SEEN_NAME):
        Path(current.uri, name).write_bytes(b"overwritten")
        refused = decide(spec, bundle)
        assert not refused.promoted
        assert "damaged" in refused.reason


def test_a_picture_is_known_again_in_a_moved_store_and_below_another_root(tmp_path: Path):
    spec = spec_of(tmp_path, 60)
    training_set = job_of(spec)[1]
    seen = seen_in_training(training_set)
    for examples, is_new in ((training_set.train, False), (training_set.validation, False), (training_set.test, True)):
        assert (unseen(examples, training_set.root, seen) == is_new).all()
        assert (unseen(examples, str(tmp_path), seen) == is_new).all(), "another root: known by the whole address"
    shutil.move(tmp_path / "images", tmp_path / "elsewhere")
    data = {**shapes_source(tmp_path)["data"], "split": SPLIT, "images": str(tmp_path / "elsewhere")}
    moved = job_of(shapes_spec(tmp_path, data=data))[1]
    assert not unseen(moved.train, moved.root, seen).any()
    assert unseen(moved.test, moved.root, seen).all()


def test_a_name_in_a_further_source_hides_no_picture_of_the_main_one(tmp_path: Path):
    write_labels(tmp_path / "more.csv", write_shapes(tmp_path / "more", 60, seed=5))
    sources = [{"images": str(tmp_path / "more"), "labels": str(tmp_path / "more.csv")}]
    shapes_spec(tmp_path, 60)
    data = {**shapes_source(tmp_path)["data"], "split": SPLIT, "sources": sources}
    training_set = job_of(shapes_spec(tmp_path, data=data))[1]
    seen = seen_in_training(training_set)
    assert unseen(training_set.test, training_set.root, seen).all()
    assert not unseen(training_set.train, training_set.root, seen).any()


def test_unreadable_pictures_do_not_shift_answers_to_their_neighbours(tmp_path: Path):
    spec = spec_of(tmp_path, 60)
    labelers = [Labeler(publish(spec)), Labeler(publish(spec, seed=1))]
    pictures = job_of(spec)[1].train
    whole = answer(labelers[0], pictures)
    uris = pictures.uris.to_pylist()
    Path(uris[3]).unlink()
    Path(uris[5]).write_bytes(b"no picture")
    parts = answer_together(labelers, pictures)
    for part in parts:
        assert set(part.unreadable) == {uris[3], uris[5]}
        assert (part.targets == np.delete(whole.targets, [3, 5], axis=0)).all()
    np.testing.assert_allclose(parts[0].logits, np.delete(whole.logits, [3, 5], axis=0), atol=1e-4)
    np.testing.assert_allclose(parts[1].logits, answer(labelers[1], pictures).logits, atol=1e-4)
