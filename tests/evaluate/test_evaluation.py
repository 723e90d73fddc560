import json
import re
from dataclasses import replace

import numpy as np
import pytest

from evaluate.measured import own_answers
from labelmill import metrics
from labelmill.evaluate import evaluation
from labelmill.evaluate.evaluation import evaluation_of
from labelmill.evaluate.mistakes import worst_mistakes
from labelmill.evaluate.robustness import measure_robustness
from labelmill.images.corrupt import CORRUPTIONS

MODEL = {"name": "tiny", "version": 1, "digest": "0" * 64}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("LABELMILL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def described(module):
    """The words that stand in a docstring as keys."""
    return set(re.findall(r"\b[a-z][a-z0-9_]*\b", module.__doc__))


def keys(value):
    if isinstance(value, dict):
        yield from value
        for inner in value.values():
            yield from keys(inner)
    elif isinstance(value, list):
        for inner in value[:1]:
            yield from keys(inner)


@pytest.mark.parametrize("task", ["binary", "multi_class", "multi_label"])
def test_every_key_is_described_and_every_number_is_json(tmp_path, task):
    labeler, answers = own_answers(tmp_path, task, slices=["day", "night"] * 12)
    robustness = measure_robustness(labeler, answers.examples, num_pictures=8, max_pixels=10**8)
    found = evaluation_of(labeler.bundle, answers, split="test", model=MODEL, robustness=robustness)
    json.dumps(found, allow_nan=False)
    from_users = {*labeler.bundle.labels, "day", "night"}
    assert set(keys(found)) - from_users <= described(evaluation) | described(metrics)
    assert found["metrics"]["num_pictures"] == 24
    assert found["uncalibrated"] is None


def test_calibration_is_applied_and_what_was_before_it_is_kept(tmp_path):
    labeler, answers = own_answers(tmp_path)
    warm = replace(labeler.bundle, calibration={"temperature": 3.0})
    before, after = (
        evaluation_of(card, answers, split="test", model=MODEL, robustness=None) for card in (labeler.bundle, warm)
    )
    assert after["uncalibrated"] == before["reliability"]
    assert after["reliability"] != before["reliability"]
    assert after["metrics"]["map"] == before["metrics"]["map"]


def test_slices_are_measured_apart_and_add_up(tmp_path):
    labeler, answers = own_answers(tmp_path, slices=["easy", "easy", "easy", "hard"] * 6)
    found = evaluation_of(labeler.bundle, answers, split="all", model=MODEL)["slices"]
    assert list(found) == ["easy", "hard"]
    assert (found["easy"]["num_pictures"], found["hard"]["num_pictures"]) == (18, 6)
    assert found["easy"]["accuracy"] == 1.0  # every fourth picture has the labels of another
    assert found["hard"]["accuracy"] < 1.0
    low, high = found["hard"]["intervals"]["accuracy"]
    assert low <= found["hard"]["accuracy"] <= high


def test_the_worst_mistake_is_the_one_it_was_surest_of(tmp_path):
    labeler, answers = own_answers(tmp_path, "multi_class")
    confidences = labeler.bundle.confidences(answers.logits)
    mistakes = worst_mistakes(labeler.bundle, answers)
    wrong = [row for row in range(24) if confidences[row].argmax() != answers.targets[row].argmax()]
    assert len(mistakes) == len(wrong) > 0
    surest = max(wrong, key=lambda row: confidences[row].max())
    assert mistakes[0]["uri"] == answers.examples.uris[surest].as_py()
    assert mistakes[0]["kind"] == "confused"
    assert mistakes[0]["true"] == [labeler.bundle.labels[answers.targets[surest].argmax()]]
    assert mistakes[0]["given"][0] == [mistakes[0]["label"], mistakes[0]["confidence"]]
    assert len(worst_mistakes(labeler.bundle, answers, num_shown=1)) == 1


def test_a_missed_label_is_a_mistake_as_a_wrong_one_is(tmp_path):
    labeler, answers = own_answers(tmp_path)
    answers.targets[:] = (labeler.bundle.confidences(answers.logits) >= 0.5).astype(np.uint8)
    assert worst_mistakes(labeler.bundle, answers) == []
    answers.targets[5, 1] ^= 1
    (mistake,) = worst_mistakes(labeler.bundle, answers)
    assert (mistake["uri"], mistake["label"]) == (answers.examples.uris[5].as_py(), "dog")
    assert mistake["kind"] == ("false_negative" if answers.targets[5, 1] else "false_positive")


def test_worse_pictures_are_answered_from_the_very_pixels_the_model_sees(tmp_path):
    labeler, answers = own_answers(tmp_path)
    found = measure_robustness(labeler, answers.examples, num_pictures=1000, max_pixels=10**8)
    assert found["num_pictures"] == 24
    clean = evaluation_of(labeler.bundle, answers, split="all", model=MODEL)["metrics"]
    assert found["clean"]["map"] == pytest.approx(clean["map"])
    for name in CORRUPTIONS:
        assert [row["strength"] for row in found[name]] == [1, 2, 3, 4, 5]
    assert found["noise"][-1]["map"] < found["clean"]["map"]


def test_a_picture_that_is_gone_is_passed_over_by_robustness(tmp_path):
    labeler, answers = own_answers(tmp_path)
    (tmp_path / "pictures" / "003.jpg").unlink()
    (tmp_path / "pictures" / "004.jpg").write_bytes(b"no picture")
    found = measure_robustness(labeler, answers.examples, num_pictures=1000, max_pixels=10**8)
    assert found["num_pictures"] == 22
