import json

import numpy as np
import pytest

from labelmill.metrics import evaluate, intervals
from metrics.made import LABELS, random_split


def test_the_interval_of_accuracy_is_the_binomial_one():
    targets = np.eye(2)[np.zeros(400, int)]
    confidences = np.where(np.arange(400)[:, None] < 320, [[0.9, 0.1]], [[0.1, 0.9]])
    low, high = intervals("multi_class", ["a", "b"], targets, confidences, [])["accuracy"]
    half = 1.96 * np.sqrt(0.8 * 0.2 / 400)
    assert (low, high) == (pytest.approx(0.8 - half, abs=0.007), pytest.approx(0.8 + half, abs=0.007))


def test_every_metric_lies_within_its_interval():
    targets, confidences = random_split()
    given = "multi_label", LABELS, targets, confidences, [0.5, 0.4, 0.6]
    numbers, bounds = evaluate(*given), intervals(*given, num_resamples=300)
    names = [name for name in bounds if name not in ("level", "num_resamples", "per_label")]
    assert {"accuracy", "balanced_accuracy", "macro_f1", "micro_recall", "weighted_precision", "map", "roc_auc"} <= {
        *names
    }
    for name in names:
        assert bounds[name][0] < numbers[name] < bounds[name][1], name
    for label, row in bounds["per_label"].items():
        for name, (low, high) in row.items():
            assert low <= numbers["per_label"][label][name] <= high, (label, name)


def test_few_pictures_say_less_than_many():
    few, many = (
        intervals("multi_label", LABELS, *random_split(count=count), [0.5] * 3, num_resamples=200)["map"]
        for count in (60, 2000)
    )
    assert few[1] - few[0] > 3 * (many[1] - many[0])


@pytest.mark.filterwarnings("error")
def test_a_label_in_hardly_any_picture_has_no_interval():
    targets, confidences = random_split(count=20)
    targets[:, 2] = np.arange(20) == 0  # missing from a third of all resamples
    bounds = intervals("multi_label", LABELS, targets, confidences, [0.5] * 3)
    assert bounds["per_label"]["eel"]["average_precision"] is None
    assert bounds["per_label"]["cat"]["average_precision"] is not None
    json.dumps(bounds, allow_nan=False)


def test_the_same_answers_give_the_same_interval():
    targets, confidences = random_split()
    first, second = (intervals("multi_label", LABELS, targets, confidences, [0.5] * 3) for _ in range(2))
    assert first == second
