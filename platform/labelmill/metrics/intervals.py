"""How far the metrics would move with other pictures of the same kind."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from labelmill.metrics.decisions import Decisions, decide
from labelmill.metrics.evaluation import MEANS_OF_RANKED, rankings
from labelmill.metrics.numbers import Numbers, counted, mean_over_labels

__all__ = ["Difference", "difference", "intervals"]

_LEVEL = 0.95
_NUM_RESAMPLES = 1000
_MIN_RESAMPLES = 100
_MAX_WORK = 500_000_000  # pictures times labels times resamples: some 20 s on one core
_CHUNK = 1_000_000  # pictures times resamples that lie in memory at once


def intervals(
    task: str,
    labels: Sequence[str],
    targets: ArrayLike,
    confidences: ArrayLike,
    thresholds: Sequence[float],
    *,
    num_resamples: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """The middle 95 % of each metric over pictures drawn again with replacement, as described in `labelmill.metrics`.

    The percentile bootstrap (Efron and Tibshirani, 1993). Without `num_resamples` there are 1000, and down to 100 for
    sets so large that 1000 would take minutes. A number that fewer than nine of ten resamples define has none.
    """
    decisions = decide(task, labels, targets, confidences, thresholds)
    num_resamples = num_resamples or _num_resamples(decisions)
    drawn = [_numbers(decisions, weights) for weights in _resamples(len(decisions.truth), num_resamples, seed)]
    overall, by_label = (
        {name: _ends(np.concatenate([part[which][name] for part in drawn])) for name in drawn[0][which]}
        for which in (0, 1)
    )
    return {
        "level": _LEVEL,
        "num_resamples": num_resamples,
        **{name: _pair(ends) for name, ends in overall.items()},
        "per_label": {
            label: {name: _pair(ends[:, column]) for name, ends in by_label.items()}
            for column, label in enumerate(decisions.labels)
        },
    }


@dataclass(frozen=True, slots=True)
class Difference:
    """What a metric is for two models on the same pictures, and the middle 95 % of the first one's lead over the second
    with pictures drawn again: below zero is a lag."""

    first: float
    second: float
    low: float
    high: float

    @property
    def is_sure_lead(self) -> bool:
        return self.low > 0


def difference(metric: str, first: Decisions, second: Decisions, *, seed: int = 0) -> Difference | None:
    """The paired bootstrap: both models are measured on each draw, so what is hard about a picture is so for both. None
    where fewer than nine of ten resamples define the metric, as where hardly a picture has a label."""

    def of(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack([_numbers(decisions, weights)[0][metric] for decisions in (first, second)])

    values = of(np.ones((1, len(first.truth))))[:, 0]
    resamples = _resamples(len(first.truth), _num_resamples(first), seed)
    ends = _ends(np.concatenate([np.subtract(*of(weights)) for weights in resamples]))
    if np.isnan([*values, *ends]).any():
        return None
    return Difference(*(float(value) for value in (*values, *ends)))


def _num_resamples(decisions: Decisions) -> int:
    return int(np.clip(_MAX_WORK // decisions.truth.size, _MIN_RESAMPLES, _NUM_RESAMPLES))


def _numbers(decisions: Decisions, weights: NDArray[np.float64]) -> tuple[Numbers, Numbers]:
    overall, by_label = counted(decisions, weights)
    by_label |= rankings(decisions, weights)
    return overall | {name: mean_over_labels(by_label[of]) for name, of in MEANS_OF_RANKED.items()}, by_label


def _resamples(num_pictures: int, num_resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
    """How often each picture was drawn, [R, N], in portions."""
    rng = np.random.default_rng(seed)
    at_once = max(1, _CHUNK // num_pictures)
    for start in range(0, num_resamples, at_once):
        chosen = rng.integers(0, num_pictures, (min(at_once, num_resamples - start), num_pictures))
        yield np.stack([np.bincount(row, minlength=num_pictures) for row in chosen]).astype(np.float64)


def _ends(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """[R, ...] -> [2, ...]"""
    defined = (~np.isnan(values)).mean(axis=0) >= 0.9
    shares = [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2]
    ends = np.full((2, *values.shape[1:]), np.nan)
    if defined.any():
        ends[:, defined] = np.nanquantile(values[:, defined], shares, axis=0)
    return ends


def _pair(ends: NDArray[np.float64]) -> list[float] | None:
    return None if np.isnan(ends).any() else [float(end) for end in ends]
