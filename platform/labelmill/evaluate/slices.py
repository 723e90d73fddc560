"""How good a model is on each part of the pictures: a camera, a season, a hospital."""

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from labelmill.evaluate.answers import Answers
from labelmill.metrics import evaluate, intervals
from labelmill.model.bundle import ModelCard

__all__ = ["measure_slices"]

_NUM_RESAMPLES = 200


def measure_slices(card: ModelCard, answers: Answers) -> dict[str, Any]:
    """The metrics of each slice, largest first, as described in `labelmill.evaluate.evaluation`."""
    slices = answers.examples.slices
    if slices is None:
        return {}
    confidences = card.confidences(answers.logits)
    found = {}
    for name in pc.unique(slices).to_pylist():
        rows = np.flatnonzero(pc.equal(slices, pa.scalar(name)).to_numpy(zero_copy_only=False))
        given = card.task, card.labels, answers.targets[rows], confidences[rows], card.thresholds
        metrics, bounds = evaluate(*given), intervals(*given, num_resamples=_NUM_RESAMPLES)
        del metrics["per_label"], bounds["per_label"]
        found[name] = {**metrics, "intervals": bounds}
    return dict(sorted(found.items(), key=lambda item: -item[1]["num_pictures"]))
