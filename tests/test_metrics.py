import json

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, f1_score, precision_recall_fscore_support

from labelmill.errors import DataError
from labelmill.metrics import choose_thresholds, evaluate

LABELS = ["cat", "dog", "eel"]


def random_split(seed=0, count=200):
    rng = np.random.default_rng(seed)
    targets = rng.random((count, 3)) < [0.5, 0.2, 0.05]
    confidences = np.clip(targets * 0.3 + rng.random((count, 3)) * 0.7, 0, 1).astype(np.float32)
    return targets, confidences


def test_metrics_agree_with_scikit_learn():
    targets, confidences = random_split()
    thresholds = [0.5, 0.4, 0.6]
    result = evaluate("multi_label", LABELS, targets, confidences, thresholds)
    predicted = confidences.astype(float) >= thresholds
    precision, recall, f1, support = precision_recall_fscore_support(targets, predicted)
    for column, label in enumerate(LABELS):
        row = result["per_label"][label]
        assert row["precision"] == pytest.approx(precision[column])
        assert row["recall"] == pytest.approx(recall[column])
        assert row["f1"] == pytest.approx(f1[column])
        assert row["support"] == support[column]
    assert result["micro_f1"] == pytest.approx(f1_score(targets, predicted, average="micro"))
    assert result["macro_f1"] == pytest.approx(f1_score(targets, predicted, average="macro"))
    assert result["map"] == pytest.approx(average_precision_score(targets, confidences, average="macro"))
    assert result["accuracy"] == pytest.approx((predicted == targets).all(axis=1).mean())


def test_thresholds_reach_the_best_f1_that_any_threshold_reaches():
    targets, confidences = random_split()
    chosen = choose_thresholds(targets, confidences)
    for column, threshold in enumerate(chosen.values):
        truth, scores = targets[:, column], confidences[:, column].astype(float)
        best = max(f1_score(truth, scores >= t) for t in np.unique(scores))
        assert f1_score(truth, scores >= threshold) == pytest.approx(best)
    assert chosen.without_positives == ()


def test_threshold_keeps_away_from_the_confidences_it_separates():
    targets = np.array([[0], [0], [1], [1]])
    chosen = choose_thresholds(targets, np.array([[0.1], [0.2], [0.8], [0.9]]))
    assert chosen.values == (pytest.approx(0.5),)


def test_label_without_positives_gets_half_and_is_named():
    targets, confidences = random_split()
    targets[:, 1] = False
    chosen = choose_thresholds(targets, confidences)
    assert chosen.values[1] == 0.5
    assert chosen.without_positives == (1,)


def test_a_split_of_positives_only_accepts_them_all():
    confidences = np.array([[0.02], [0.9]])
    (threshold,) = choose_thresholds(np.ones((2, 1)), confidences).values
    assert (confidences >= threshold).all()


@pytest.mark.filterwarnings("error")
def test_undefined_numbers_are_none_and_the_result_is_json():
    targets = np.array([[1, 0, 0], [1, 0, 0]])
    confidences = np.array([[0.9, 0.1, 0.9], [0.8, 0.2, 0.1]])
    result = evaluate("multi_label", LABELS, targets, confidences, [0.5, 0.5, 0.5])
    dog, eel = result["per_label"]["dog"], result["per_label"]["eel"]
    assert dog == {
        "precision": None, "recall": None, "f1": None, "average_precision": None, "support": 0, "predicted": 0,
    }  # fmt: skip
    assert (eel["precision"], eel["recall"], eel["f1"]) == (0.0, None, 0.0)
    assert result["macro_f1"] == pytest.approx(0.5)
    assert result["map"] == 1.0
    json.dumps(result, allow_nan=False)
    choose_thresholds(targets, confidences)


def test_multi_class_takes_the_top_label_whatever_the_thresholds():
    targets = np.eye(3)
    confidences = np.array([[0.4, 0.3, 0.3], [0.5, 0.4, 0.1], [0.1, 0.1, 0.8]])
    result = evaluate("multi_class", LABELS, targets, confidences, [])
    assert result["accuracy"] == pytest.approx(2 / 3)
    assert result["per_label"]["dog"]["recall"] == 0.0


def test_binary_is_one_column():
    result = evaluate("binary", ["cat"], np.array([[1], [0]]), np.array([[0.7], [0.6]]), [0.65])
    assert result["accuracy"] == 1.0
    assert result["per_label"]["cat"]["support"] == 1


@pytest.mark.parametrize(("targets", "confidences"), [(np.zeros((0, 3)), np.zeros((0, 3))), (np.eye(3), np.eye(2))])
def test_an_empty_split_or_other_shape_is_said_plainly(targets, confidences):
    with pytest.raises(DataError, match="at least one picture"):
        evaluate("multi_label", LABELS, targets, confidences, [0.5] * 3)
