import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, roc_curve

from labelmill.metrics import confusion, threshold_curves
from metrics.made import LABELS, random_split


def classes(num_labels, seed=0):
    rng = np.random.default_rng(seed)
    true = rng.integers(0, num_labels, 500)
    return true, np.eye(num_labels)[true], rng.random((500, num_labels))


def test_rows_are_the_truth_and_columns_what_was_said():
    true, targets, confidences = classes(4)
    found = confusion("multi_class", list("abcd"), targets, confidences, [])
    assert found["counts"] == confusion_matrix(true, confidences.argmax(axis=1)).tolist()
    pair = found["pairs"][0]
    counts = np.array(found["counts"]) * (1 - np.eye(4, dtype=int))
    assert pair["count"] == counts.max()
    assert counts["abcd".index(pair["label"]), "abcd".index(pair["predicted"])] == counts.max()


def test_thousands_of_labels_give_pairs_and_no_matrix_that_nobody_can_load():
    _, targets, confidences = classes(300)
    found = confusion("multi_class", [str(number) for number in range(300)], targets, confidences, [])
    assert found["counts"] is None
    assert len(found["pairs"]) == 50


def test_labels_that_come_together_are_counted_on_both_sides():
    targets, confidences = np.array([[1, 1, 0], [1, 1, 1], [1, 0, 0]]), np.full((3, 3), 0.6)
    found = confusion("multi_label", LABELS, targets, confidences, [0.5, 0.5, 0.7])
    assert found["together"] == [[3, 2, 1], [2, 2, 1], [1, 1, 1]]
    assert found["predicted_together"] == [[3, 3, 0], [3, 3, 0], [0, 0, 0]]
    assert found["counts"] is None


def test_a_curve_says_what_each_threshold_gives():
    targets, confidences = random_split()
    for column, label in enumerate(LABELS):
        curve = threshold_curves(LABELS, targets, confidences)[label]
        truth, scores = targets[:, column], confidences[:, column].astype(float)
        assert curve["threshold"] == sorted(curve["threshold"])
        for index, threshold in enumerate(curve["threshold"]):
            given = scores >= threshold
            assert curve["recall"][index] == pytest.approx(given[truth].mean(), abs=1e-6)
            assert curve["false_positive_rate"][index] == pytest.approx(given[~truth].mean(), abs=1e-6)
            expected = truth[given].mean() if given.any() else None
            assert curve["precision"][index] == (None if expected is None else pytest.approx(expected, abs=1e-6))


def test_a_rare_label_that_lives_below_a_tenth_has_a_curve_too():
    targets = np.arange(1000)[:, None] < 20
    confidences = np.where(targets, 0.02, 0.001) + np.linspace(0, 0.01, 1000)[:, None]
    curve = threshold_curves(["rare"], targets, confidences)["rare"]
    assert len({round(recall, 3) for recall in curve["recall"]}) > 10
    assert max(roc_curve(targets, confidences)[1]) == max(curve["recall"]) == 1.0


def test_a_label_without_pictures_has_a_curve_without_recall():
    curve = threshold_curves(["none"], np.zeros((4, 1)), np.full((4, 1), 0.5))["none"]
    assert set(curve["recall"]) == {None}
