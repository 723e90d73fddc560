import json

import numpy as np
import pytest

from labelmill.metrics import decide, difference, evaluate, intervals
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


def right_on(right: np.ndarray):
    """Of a model that gives these of N pictures their label."""
    confidences = np.where(right[:, None], [[0.9, 0.1]], [[0.1, 0.9]])
    return decide("multi_class", ["a", "b"], np.eye(2)[np.zeros(len(right), int)], confidences, [])


def test_a_lead_on_few_pictures_is_not_sure_and_the_same_lead_on_many_is():
    pictures = np.arange(4000)
    first, second = pictures % 20 < 18, pictures % 20 < 17
    few = difference("accuracy", right_on(first[:20]), right_on(second[:20]))
    many = difference("accuracy", right_on(first), right_on(second))
    assert few is not None and many is not None
    assert (few.first, few.second) == (many.first, many.second) == (0.9, 0.85)
    assert few.low == 0 and not few.is_sure_lead
    half = 1.96 * np.sqrt(0.05 * 0.95 / 4000)
    assert (many.low, many.high) == (pytest.approx(0.05 - half, abs=0.002), pytest.approx(0.05 + half, abs=0.002))
    assert many.is_sure_lead


def test_a_difference_is_paired():
    hard = np.random.default_rng(0).random(400) < 0.5  # for both
    better = hard | (np.arange(400) < 20)
    found = difference("accuracy", right_on(better), right_on(hard))
    alone = intervals("multi_class", ["a", "b"], np.eye(2)[np.zeros(400, int)], right_on(hard).confidences, [])
    assert found is not None
    assert found.high - found.low < 0.6 * (alone["accuracy"][1] - alone["accuracy"][0])


def test_a_copy_leads_by_nothing_and_a_worse_model_lags():
    targets, confidences = random_split()
    good = decide("multi_label", LABELS, targets, confidences, [0.5] * 3)
    noise = np.random.default_rng(1).random(confidences.shape)
    bad = decide("multi_label", LABELS, targets, noise, [0.5] * 3)
    copy, lag = difference("map", good, good), difference("map", bad, good)
    assert copy is not None and lag is not None
    assert (copy.low, copy.high, copy.is_sure_lead) == (0, 0, False)
    assert lag.high < 0 and not lag.is_sure_lead
    numbers = evaluate("multi_label", LABELS, targets, confidences, [0.5] * 3)
    assert copy.first == pytest.approx(numbers["map"])


@pytest.mark.filterwarnings("error")
def test_there_is_no_difference_where_hardly_a_picture_has_a_label():
    targets, confidences = random_split(count=20)
    targets[:] = 0
    targets[0, 0] = 1
    found = decide("multi_label", LABELS, targets, confidences, [0.5] * 3)
    assert difference("map", found, found) is None
