import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from bundles import make_bundle, make_draft
from labelmill.errors import BundleError
from labelmill.model.bundle import MANIFEST_NAME, WEIGHTS_NAME
from labelmill.model.registry import Registry


@pytest.fixture
def published(tmp_path, tiny_bundle):
    """A copy of the tiny registry that a test may damage: the registry and the folder of version 1."""
    shutil.copytree(Path(tiny_bundle.uri).parent.parent, tmp_path / "registry")
    return Registry(str(tmp_path / "registry")), tmp_path / "registry" / "tiny" / "1"


def test_bundle_comes_back_as_it_was_published(tiny_bundle, tiny_registry):
    bundle = Registry(tiny_registry).resolve("tiny@1")
    assert bundle == tiny_bundle
    assert (bundle.reference, bundle.labels, bundle.task) == ("tiny@1", ("cat", "dog", "eel"), "multi_label")
    assert bundle.preprocessing.image_size_px == 32
    assert set(bundle.files) == {WEIGHTS_NAME, "report/index.html"}
    assert pickle.loads(pickle.dumps(bundle)) == bundle
    assert "tiny@1" in repr(bundle) and bundle.digest[:12] in repr(bundle) and len(repr(bundle)) < 300


def test_same_content_has_the_same_digest_under_any_name_and_other_content_another(tmp_path):
    one, two = make_bundle(tmp_path, "one"), make_bundle(tmp_path, "two")
    assert one.digest == two.digest
    assert make_bundle(tmp_path, "one", seed=1).digest != one.digest
    assert make_bundle(tmp_path, "one", thresholds=(0.5, 0.5, 0.6)).digest != one.digest


def test_weights_are_fetched_once_and_survive_the_store(published):
    registry, folder = published
    bundle = registry.resolve("tiny@1")
    path = bundle.weights_path()
    (folder / WEIGHTS_NAME).unlink()
    assert bundle.weights_path() == path


def test_damaged_weights_in_the_cache_are_fetched_again(published):
    bundle = published[0].resolve("tiny@1")
    good = bundle.weights_path().read_bytes()
    bundle.weights_path().write_bytes(good[:-1])
    assert bundle.weights_path().read_bytes() == good


def test_damaged_weights_are_named_with_both_digests(published, tmp_path, monkeypatch):
    monkeypatch.setenv("LABELMILL_CACHE", str(tmp_path / "cold"))
    registry, folder = published
    data = bytearray((folder / WEIGHTS_NAME).read_bytes())
    data[-1] ^= 1
    (folder / WEIGHTS_NAME).write_bytes(data)
    bundle = registry.resolve("tiny@1")
    with pytest.raises(BundleError, match=rf"{WEIGHTS_NAME}.*expected sha256 [0-9a-f]{{64}}.*found [0-9a-f]{{64}}"):
        bundle.weights_path()
    assert not list((tmp_path / "cold").rglob("*.safetensors"))


def test_missing_weights_are_named(published, tmp_path, monkeypatch):
    monkeypatch.setenv("LABELMILL_CACHE", str(tmp_path / "cold"))
    registry, folder = published
    (folder / WEIGHTS_NAME).unlink()
    with pytest.raises(BundleError, match=f"{WEIGHTS_NAME} of tiny@1 is missing"):
        registry.resolve("tiny@1").weights_path()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: text[:40], "not a manifest"),
        (lambda text: "[]", "not a manifest"),
        (lambda text: "{}", "not a manifest"),
        (lambda text: text.replace('"dog"', '"cow"'), "damaged: it says digest"),
        (lambda text: text.replace('"format_version": 1', '"format_version": 2'), "format version 2.*reads 1.*newer"),
    ],
)
def test_damaged_manifest_is_one_clear_error(published, damage, message):
    registry, folder = published
    text = (folder / MANIFEST_NAME).read_text()
    (folder / MANIFEST_NAME).write_text(damage(text))
    with pytest.raises(BundleError, match=message):
        registry.resolve("tiny@1")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": None}, "lacks or garbles"),
        ({"preprocessing": {}}, "preprocessing"),
        ({"files": {}}, f"names no {WEIGHTS_NAME}"),
        ({"files": {"../../x": {"size_bytes": 1, "sha256": "0"}}}, "named '../../x'"),
        ({"task": "regression"}, "'regression'"),
    ],
)
def test_manifest_with_a_right_digest_and_wrong_content_is_refused(published, change, message):
    from labelmill.model.bundle import _digest

    registry, folder = published
    content = json.loads((folder / MANIFEST_NAME).read_text()) | change
    del content["digest"]
    (folder / MANIFEST_NAME).write_text(json.dumps(content | {"digest": _digest(content)}))
    with pytest.raises(BundleError, match=message):
        registry.resolve("tiny@1")


@pytest.mark.parametrize(
    ("card", "message"),
    [
        ({"labels": ("cat", "cat")}, "distinct"),
        ({"task": "binary"}, "one label"),
        ({"thresholds": (0.5,)}, "a threshold for each of 3"),
        ({"task": "ranking"}, "'ranking'"),
    ],
)
def test_draft_that_makes_no_sense_is_refused(tmp_path, card, message):
    with pytest.raises(BundleError, match=message):
        make_draft(tmp_path, **card)


def test_draft_with_nan_or_without_weights_is_refused(tmp_path):
    draft = make_draft(tmp_path / "draft", metrics={"map": float("nan")})
    with pytest.raises(BundleError, match="NaN"):
        Registry(str(tmp_path / "registry")).publish("tiny", draft)
    (draft.folder / WEIGHTS_NAME).unlink()
    with pytest.raises(BundleError, match=WEIGHTS_NAME):
        Registry(str(tmp_path / "registry")).publish("tiny", draft)
    assert Registry(str(tmp_path / "registry")).names() == []


def test_multi_label_decides_by_thresholds_best_first(tmp_path):
    card = make_draft(tmp_path, thresholds=(0.5, 0.2, 0.9))
    decided = card.decide(np.array([0.5, 0.8, 0.89], np.float32))
    assert decided == [("dog", pytest.approx(0.8)), ("cat", 0.5)]
    assert card.decide(np.array([0.1, 0.1, 0.1], np.float32)) == []


def test_multi_class_decides_for_the_top_label_and_ties_go_to_the_first(tmp_path):
    card = make_draft(tmp_path, task="multi_class", thresholds=())
    assert card.decide(np.array([0.2, 0.4, 0.4], np.float32)) == [("dog", pytest.approx(0.4))]


def test_equal_confidences_keep_the_order_of_the_labels(tmp_path):
    labels = tuple(f"label{index:02}" for index in range(64))
    card = make_draft(tmp_path, labels=labels)
    confidences = np.tile(np.array([0.5, 0.75], np.float32), 32)
    assert tuple(label for label, _ in card.decide(confidences)) == labels[1::2] + labels[::2]


def test_binary_decides_for_the_positive_label_or_none(tmp_path):
    card = make_draft(tmp_path, task="binary", labels=("cat",), thresholds=(0.7,))
    assert card.decide(np.array([0.71], np.float32)) == [("cat", pytest.approx(0.71))]
    assert card.decide(np.array([0.69], np.float32)) == []


def test_top_gives_raw_confidences_best_first(tmp_path):
    card = make_draft(tmp_path)
    confidences = np.array([0.25, 0.75, 0.5], np.float32)
    assert card.top(confidences, 2) == [("dog", 0.75), ("eel", 0.5)]
    assert card.top(confidences) == [("dog", 0.75), ("eel", 0.5), ("cat", 0.25)]
