import numpy as np
import pytest

from labelmill.metrics import evaluate, reliability


def test_the_error_of_a_worked_example():
    confidences = np.array([[0.95], [0.95], [0.95], [0.95], [0.1], [0.1]])
    found = reliability("binary", np.array([[1], [1], [1], [0], [0], [0]]), confidences)
    assert found["ece"] == pytest.approx((4 * abs(0.95 - 0.75) + 2 * 0.1) / 6)
    low, high = found["bins"]
    assert (low["count"], low["accuracy"]) == (2, 0.0)
    assert (high["count"], high["confidence"], high["accuracy"]) == (4, pytest.approx(0.95), 0.75)
    assert low["low"] <= 0.1 <= low["high"]


def test_honest_confidences_have_hardly_any_error_and_bold_ones_do():
    rng = np.random.default_rng(0)
    confidences = rng.random((20_000, 1))
    targets = rng.random((20_000, 1)) < confidences
    assert reliability("binary", targets, confidences)["ece"] < 0.015
    assert reliability("binary", targets, np.clip(confidences * 2 - 0.5, 0, 1))["ece"] > 0.1


def test_of_classes_only_the_top_one_counts():
    targets, confidences = np.eye(3), np.full((3, 3), 0.1) + 0.7 * np.eye(3)
    assert reliability("multi_class", targets, confidences)["bins"][0]["count"] == 3
    assert reliability("multi_class", targets, confidences)["ece"] == pytest.approx(0.2)
    assert reliability("multi_label", targets, confidences)["bins"][0]["count"] == 6


def test_each_label_has_an_error_of_its_own():
    targets = np.array([[1, 0], [1, 0]])
    confidences = np.array([[1.0, 0.4], [1.0, 0.4]])
    result = evaluate("multi_label", ["sure", "wrong"], targets, confidences, [0.5, 0.5])
    assert result["per_label"]["sure"]["ece"] == 0.0
    assert result["per_label"]["wrong"]["ece"] == pytest.approx(0.4)
    assert result["ece"] == pytest.approx(0.2)
