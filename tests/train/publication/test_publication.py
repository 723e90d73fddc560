"""What becomes of a candidate, without Ray and without training it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from bundles import make_draft
from labelmill.dataset import Examples
from labelmill.errors import DataError
from labelmill.evaluate.answers import answer
from labelmill.images.transform import evaluation_pixels
from labelmill.metrics import evaluate, reliability
from labelmill.model.bundle import WEIGHTS_NAME, BundleDraft
from labelmill.model.labeler import Labeler
from labelmill.model.network import build_network, load_weights, save_weights
from labelmill.model.registry import Registry
from labelmill.spec import LoadedSpec
from labelmill.train.candidate import Candidate
from labelmill.train.publication.publication import check_threshold_labels, measured_draft
from train.runs import job_of, shapes_source, shapes_spec
from train.shapes import LABELS

RULES = {"min_recall": 1.0, "labels": {"red": {"value": 0.321}, "blue": {"min_precision": 1.0}}}


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LABELMILL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory):
    """The bundle of an untrained network, and the set it was measured on."""
    folder = tmp_path_factory.mktemp("published")
    changes = {"thresholds": RULES, "robustness_pictures": 3}
    spec = shapes_spec(folder, num_pictures=120, **changes)
    _, training_set = job_of(spec)
    draft = make_draft(folder / "draft", labels=LABELS)
    candidate = Candidate(draft.architecture, draft.preprocessing)
    loaded = LoadedSpec(spec, shapes_source(folder) | changes, "shapes.yaml")
    registry = Registry(spec.registry)
    registry.publish("shapes", measured_draft(loaded, training_set, candidate, draft.folder, {"run": "digest"}))
    return registry.resolve("shapes@1"), training_set


def test_what_the_report_says_is_what_the_published_bundle_answers(published):
    bundle, training_set = published
    answers = answer(Labeler(bundle), training_set.test)
    confidences = bundle.confidences(answers.logits)
    again = evaluate(bundle.task, bundle.labels, answers.targets, confidences, bundle.thresholds)
    evaluation = json.loads(bundle.read_file("evaluation.json"))
    assert bundle.metrics["test"]["map"] == pytest.approx(again["map"], abs=1e-6)
    assert evaluation["metrics"]["macro_f1"] == pytest.approx(again["macro_f1"], abs=1e-6)
    assert evaluation["split"] == "test"
    assert evaluation["robustness"]["num_pictures"] == 3
    assert evaluation["calibration"] == bundle.calibration
    assert evaluation["thresholds"] == list(bundle.thresholds)


def test_a_bundle_is_calibrated_on_its_validation_pictures(published):
    bundle, training_set = published
    assert set(bundle.calibration) == {"slopes", "intercepts"}
    answers = answer(Labeler(bundle), training_set.validation)
    before, after = (
        reliability(bundle.task, answers.targets, found)["ece"]
        for found in (1 / (1 + np.exp(-answers.logits)), bundle.confidences(answers.logits))
    )
    assert after < before


def test_thresholds_follow_the_rules_of_the_spec_and_say_where_they_cannot(published):
    bundle, training_set = published
    blue, green, red = bundle.thresholds
    assert red == 0.321
    answers = answer(Labeler(bundle), training_set.validation)
    confidences, targets = bundle.confidences(answers.logits), answers.targets == 1
    assert (confidences[targets[:, 1], 1] >= green).all()
    given = confidences[:, 0] >= blue
    found = bundle.metrics["findings"]["thresholds"]
    assert found["precision_not_reached"] == ([] if targets[given, 0].all() else ["blue"])
    assert found["without_positives"] == []


def test_a_threshold_for_a_label_that_is_not_there_is_said_before_training(tmp_path: Path):
    spec = shapes_spec(tmp_path, thresholds={"labels": {"rde": {"value": 0.5}}})
    with pytest.raises(DataError, match=r"thresholds\.labels.*'rde'"):
        check_threshold_labels(spec, LABELS)


@pytest.mark.long
def test_an_overconfident_network_has_at_most_half_the_calibration_error_afterwards(tmp_path: Path):
    """A network that learnt noisy labels by heart is sure of everything."""
    changes = {"data": {**shapes_source(tmp_path)["data"], "split": {"train": 0.2, "validation": 0.3, "test": 0.5}}}
    spec = shapes_spec(tmp_path, num_pictures=1200, **changes)
    _, training_set = job_of(spec)
    rng = np.random.default_rng(0)
    for examples in training_set.splits().values():
        examples.targets[:] ^= rng.random(examples.targets.shape) < 0.15
    draft = make_draft(tmp_path / "draft", labels=LABELS)
    learn_by_heart(draft, training_set.train)
    candidate = Candidate(draft.architecture, draft.preprocessing)
    registry = Registry(spec.registry)
    loaded = LoadedSpec(spec, shapes_source(tmp_path) | changes, "shapes.yaml")
    measured = measured_draft(loaded, training_set, candidate, draft.folder, {"run": "digest"})
    bundle = registry.publish("shapes", measured)
    evaluation = json.loads(bundle.read_file("evaluation.json"))
    assert evaluation["uncalibrated"]["ece"] > 0.1
    assert evaluation["reliability"]["ece"] <= evaluation["uncalibrated"]["ece"] / 2


def learn_by_heart(draft: BundleDraft, examples: Examples) -> None:
    torch.manual_seed(0)
    network = build_network(draft.architecture, len(draft.labels), image_size_px=32)
    load_weights(network, draft.folder / WEIGHTS_NAME)
    preprocessing = draft.preprocessing
    pixels = np.stack(
        [evaluation_pixels(Path(uri).read_bytes(), preprocessing)[0] for uri in examples.uris.to_pylist()]
    )
    inputs = (
        (torch.from_numpy(pixels) / 255 - torch.tensor(preprocessing.mean)) / torch.tensor(preprocessing.std)
    ).permute(0, 3, 1, 2)
    targets = torch.from_numpy(examples.targets).float()
    optimizer = torch.optim.AdamW(network.train().parameters(), 3e-3)
    for _ in range(60):
        for rows in torch.randperm(len(targets)).split(32):
            loss = torch.nn.functional.binary_cross_entropy_with_logits(network(inputs[rows]), targets[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    save_weights(network.eval(), draft.folder / WEIGHTS_NAME)
