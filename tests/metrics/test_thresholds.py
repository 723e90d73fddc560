import numpy as np
import pytest
from sklearn.metrics import f1_score

from labelmill.metrics import choose_thresholds
from labelmill.spec import ThresholdRule
from metrics.made import random_split


def chosen_for(rule, targets, confidences):
    """The threshold of one column, and precision, recall and the pictures that it accepts."""
    (threshold,) = choose_thresholds(targets[:, None], confidences[:, None], [ThresholdRule(**rule)]).values
    accepted = confidences >= threshold
    return threshold, targets[accepted].mean(), accepted[targets].mean(), accepted


def test_thresholds_reach_the_best_f1_that_any_threshold_reaches():
    targets, confidences = random_split()
    chosen = choose_thresholds(targets, confidences)
    for column, threshold in enumerate(chosen.values):
        truth, scores = targets[:, column], confidences[:, column].astype(float)
        best = max(f1_score(truth, scores >= t) for t in np.unique(scores))
        assert f1_score(truth, scores >= threshold) == pytest.approx(best)
    assert (chosen.without_positives, chosen.unmet) == ((), ())


@pytest.mark.parametrize("precision", [0.6, 0.8, 0.95])
def test_precision_is_kept_at_the_highest_recall_that_allows_it(precision):
    targets, confidences = (array[:, 0] for array in random_split())
    _, reached, recall, _ = chosen_for({"min_precision": precision}, targets, confidences)
    possible = [
        (confidences >= t)[targets].mean() for t in confidences if targets[confidences >= t].mean() >= precision
    ]
    assert reached >= precision
    assert recall == max(possible)


@pytest.mark.parametrize("recall", [0.5, 0.9, 1.0])
def test_recall_is_kept_with_the_fewest_wrong_pictures(recall):
    targets, confidences = (array[:, 1] for array in random_split())
    _, _, reached, accepted = chosen_for({"min_recall": recall}, targets, confidences)
    possible = [(confidences >= t)[~targets].sum() for t in confidences if (confidences >= t)[targets].mean() >= recall]
    assert reached >= recall
    assert accepted[~targets].sum() == min(possible)


@pytest.mark.parametrize(("false_positive_cost", "false_negative_cost"), [(1, 1), (1, 10), (10, 1), (1000, 1)])
def test_no_threshold_costs_less_than_the_chosen_one(false_positive_cost, false_negative_cost):
    targets, confidences = (array[:, 1] for array in random_split())

    def cost(threshold):
        given = confidences >= threshold
        return false_positive_cost * (given & ~targets).sum() + false_negative_cost * (~given & targets).sum()

    rule = {"false_positive_cost": false_positive_cost, "false_negative_cost": false_negative_cost}
    threshold = chosen_for(rule, targets, confidences)[0]
    assert cost(threshold) == min(cost(t) for t in [*confidences, 1.1])


def test_precision_out_of_reach_is_named_and_comes_as_near_as_it_can():
    targets, confidences = np.array([[0], [1], [0], [1]]), np.array([[0.9], [0.8], [0.3], [0.6]])
    chosen = choose_thresholds(targets, confidences, [ThresholdRule(min_precision=0.9)])
    assert chosen.unmet == (0,)
    assert chosen.values == (pytest.approx(0.45),)  # two right of three, where one of two is the next best


def test_a_rule_of_its_own_counts_for_its_label_alone():
    targets, confidences = random_split()
    plain = choose_thresholds(targets, confidences)
    rules = [ThresholdRule(), ThresholdRule(value=0.123), ThresholdRule()]
    assert choose_thresholds(targets, confidences, rules).values == (plain.values[0], 0.123, plain.values[2])


def test_threshold_keeps_away_from_the_confidences_it_separates():
    targets = np.array([[0], [0], [1], [1]])
    chosen = choose_thresholds(targets, np.array([[0.1], [0.2], [0.8], [0.9]]))
    assert chosen.values == (pytest.approx(0.5),)


def test_label_without_positives_gets_half_or_what_its_costs_imply_and_is_named():
    targets, confidences = random_split()
    targets[:, 1] = False
    chosen = choose_thresholds(targets, confidences)
    assert chosen.values[1] == 0.5
    assert chosen.without_positives == (1,)
    dear = ThresholdRule(false_positive_cost=3, false_negative_cost=1)
    assert choose_thresholds(targets, confidences, [dear] * 3).values[1] == 0.75


def test_a_split_of_positives_only_accepts_them_all():
    confidences = np.array([[0.02], [0.9]])
    (threshold,) = choose_thresholds(np.ones((2, 1)), confidences).values
    assert (confidences >= threshold).all()


def test_a_confidence_of_one_still_has_a_threshold():
    targets, confidences = np.array([[1], [0]]), np.array([[1.0], [1.0]])
    (threshold,) = choose_thresholds(
        targets, confidences, [ThresholdRule(false_positive_cost=9, false_negative_cost=1)]
    ).values
    assert 0 <= threshold <= 1
