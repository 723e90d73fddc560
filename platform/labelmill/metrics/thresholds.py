"""Where the thresholds belong: chosen for each label on validation pictures, by the rule that the spec gives."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labelmill.metrics.decisions import matrices
from labelmill.spec import ThresholdRule

__all__ = ["Thresholds", "choose_thresholds"]

_WITHOUT_POSITIVES = 0.5
_BEST_F1 = ThresholdRule()


@dataclass(frozen=True, slots=True)
class Thresholds:
    """One threshold a label, in the order of the columns.

    `without_positives` are columns that had nothing to go by, `unmet` those that reach the precision that was asked for
    at no threshold.
    """

    values: tuple[float, ...]
    without_positives: tuple[int, ...]
    unmet: tuple[int, ...] = ()


def choose_thresholds(
    targets: ArrayLike, confidences: ArrayLike, rules: Sequence[ThresholdRule] | None = None
) -> Thresholds:
    """A threshold for each label; without rules the one of best F1.

    It lies midway between the lowest confidence it accepts and the highest it refuses, so that rounding in another
    engine flips no answer; of thresholds that do equally well the one nearest to 0.5 counts. A label without a positive
    picture gets 0.5, or what its costs imply for calibrated confidences (Elkan, 2001: The Foundations of Cost-Sensitive
    Learning). Where no threshold has the precision that was asked for, the one with the highest is taken.
    """
    truth, scores = matrices(targets, confidences)
    chosen = [_Candidates.of(truth[:, column], scores[:, column]) for column in range(truth.shape[1])]
    rules = [_BEST_F1] * len(chosen) if rules is None else rules
    return Thresholds(
        values=tuple(candidates.choose(rule) for candidates, rule in zip(chosen, rules, strict=True)),
        without_positives=tuple(column for column, each in enumerate(chosen) if not each.num_positives),
        unmet=tuple(column for column, each in enumerate(chosen) if each.misses(rules[column])),
    )


@dataclass(frozen=True)
class _Candidates:
    """Every threshold that makes a difference to one label, falling [M], and what it accepts: right and wrong ones.

    The first accepts nothing, unless a confidence of exactly 1 leaves no room above it.
    """

    thresholds: NDArray[np.float64]
    hits: NDArray[np.int64]
    wrong: NDArray[np.int64]
    num_positives: int

    @classmethod
    def of(cls, truth: NDArray[np.bool_], scores: NDArray[np.float64]) -> "_Candidates":
        accepted = np.unique(scores)[::-1]
        lowest_accepted = np.concatenate([[1.0], accepted])
        highest_refused = np.concatenate([accepted, [0.0]])
        positives, negatives = np.sort(scores[truth]), np.sort(scores[~truth])
        hits, wrong = (
            np.concatenate([[0], len(values) - np.searchsorted(values, accepted)]) for values in (positives, negatives)
        )
        kept = slice(1 if accepted[0] >= 1 else 0, None)
        thresholds = (lowest_accepted + highest_refused) / 2
        return cls(thresholds[kept], hits[kept], wrong[kept], len(positives))

    def choose(self, rule: ThresholdRule) -> float:
        if rule.value is not None:
            return rule.value
        false_positive_cost, false_negative_cost = rule.false_positive_cost, rule.false_negative_cost
        if not self.num_positives:
            if false_positive_cost is None or false_negative_cost is None:
                return _WITHOUT_POSITIVES
            return false_positive_cost / (false_positive_cost + false_negative_cost)
        if false_positive_cost is not None and false_negative_cost is not None:
            missed = self.num_positives - self.hits
            return self._best(-(false_positive_cost * self.wrong + false_negative_cost * missed))
        if rule.min_recall is not None:
            enough = self.hits >= rule.min_recall * self.num_positives - 1e-9
            return self._best(np.where(enough, self.hits / (self.num_positives + 1) - self.wrong, -np.inf))
        if rule.min_precision is not None:
            enough = self._precision() >= min(rule.min_precision, self._precision().max()) - 1e-9
            return self._best(np.where(enough, self.hits - self.wrong / (self.wrong.max() + 1), -np.inf))
        return self._best(2 * self.hits / (self.hits + self.wrong + self.num_positives))

    def misses(self, rule: ThresholdRule) -> bool:
        wanted = rule.min_precision
        return wanted is not None and self.num_positives > 0 and self._precision().max() < wanted - 1e-9

    def _precision(self) -> NDArray[np.float64]:
        """Of what is accepted; 0 where nothing is, or else to accept nothing would meet every demand."""
        precision: NDArray[np.float64] = self.hits / np.maximum(self.hits + self.wrong, 1)
        return precision

    def _best(self, values: NDArray[np.float64]) -> float:
        equal = self.thresholds[values >= values.max() - 1e-12]
        return float(equal[np.abs(equal - 0.5).argmin()])
