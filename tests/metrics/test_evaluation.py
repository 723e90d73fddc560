import json

import numpy as np
import pytest
from sklearn.metrics import (
    auc,
    average_precision_score,
    balanced_accuracy_score,
    f1_score,
    precision_recall_curve,
    precision_recall_fscore_support,
    roc_auc_score,
    top_k_accuracy_score,
)

from labelmill.errors import DataError
from labelmill.metrics import evaluate
from metrics.made import LABELS, random_split


def test_metrics_agree_with_scikit_learn():
    targets, confidences = random_split()
    thresholds = [0.5, 0.4, 0.6]
    result = evaluate("multi_label", LABELS, targets, confidences, thresholds)
    predicted = confidences.astype(float) >= thresholds
    precision, recall, f1, support = precision_recall_fscore_support(targets, predicted)
    for column, label in enumerate(LABELS):
        row, truth, scores = result["per_label"][label], targets[:, column], confidences[:, column]
        assert row["precision"] == pytest.approx(precision[column])
        assert row["recall"] == pytest.approx(recall[column])
        assert row["f1"] == pytest.approx(f1[column])
        assert row["support"] == support[column]
        assert row["average_precision"] == pytest.approx(average_precision_score(truth, scores))
        assert row["roc_auc"] == pytest.approx(roc_auc_score(truth, scores))
        curve = precision_recall_curve(truth, scores)
        assert row["pr_auc"] == pytest.approx(auc(curve[1], curve[0]))
        assert row["true_positives"] + row["false_negatives"] == row["support"]
        assert row["true_positives"] + row["false_positives"] == row["predicted"]
        assert row["true_negatives"] == (~targets & ~predicted)[:, column].sum()
    for average in ("micro", "macro", "weighted"):
        expected = precision_recall_fscore_support(targets, predicted, average=average)
        for name, value in zip(("precision", "recall", "f1"), expected, strict=False):
            assert result[f"{average}_{name}"] == pytest.approx(value)
    assert result["map"] == pytest.approx(average_precision_score(targets, confidences, average="macro"))
    assert result["roc_auc"] == pytest.approx(roc_auc_score(targets, confidences, average="macro"))
    assert result["accuracy"] == pytest.approx((predicted == targets).all(axis=1).mean())
    by_label = [balanced_accuracy_score(targets[:, column], predicted[:, column]) for column in range(3)]
    assert result["balanced_accuracy"] == pytest.approx(np.mean(by_label))


def test_classes_agree_with_scikit_learn():
    rng = np.random.default_rng(1)
    true = rng.integers(0, 7, 300)
    confidences = rng.dirichlet(np.ones(7), 300) + 0.2 * np.eye(7)[true]
    result = evaluate("multi_class", list("abcdefg"), np.eye(7)[true], confidences, [])
    given = confidences.argmax(axis=1)
    assert result["accuracy"] == result["micro_f1"] == pytest.approx((true == given).mean())
    assert result["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(true, given))
    assert result["weighted_f1"] == pytest.approx(f1_score(true, given, average="weighted"))
    for k in (3, 5):
        assert result[f"top_{k}_accuracy"] == pytest.approx(top_k_accuracy_score(true, confidences, k=k))


def test_a_label_that_is_never_predicted_lowers_the_mean_precision():
    targets, confidences = np.eye(3), np.array([[0.9, 0.1, 0.1], [0.1, 0.9, 0.1], [0.1, 0.1, 0.2]])
    result = evaluate("multi_label", LABELS, targets, confidences, [0.5] * 3)
    assert result["per_label"]["eel"]["precision"] is None
    assert result["macro_precision"] == pytest.approx(2 / 3)


@pytest.mark.filterwarnings("error")
def test_undefined_numbers_are_none_and_the_result_is_json():
    targets = np.array([[1, 0, 0], [1, 0, 0]])
    confidences = np.array([[0.9, 0.1, 0.9], [0.8, 0.2, 0.1]])
    result = evaluate("multi_label", LABELS, targets, confidences, [0.5, 0.5, 0.5])
    cat, dog, eel = (result["per_label"][label] for label in LABELS)
    undefined = ("precision", "recall", "f1", "average_precision", "pr_auc", "roc_auc")
    assert all(dog[name] is None for name in undefined)
    assert (dog["support"], dog["predicted"]) == (0, 0)
    assert (eel["precision"], eel["recall"], eel["f1"]) == (0.0, None, 0.0)
    assert cat["roc_auc"] is None  # there is no picture without it
    assert result["macro_f1"] == pytest.approx(0.5)
    assert result["map"] == 1.0
    assert result["top_3_accuracy"] is None
    json.dumps(result, allow_nan=False)


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
