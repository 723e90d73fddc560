"""The answers that were most sure of being right, and wrong."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelmill.evaluate.answers import Answers
from labelmill.metrics.decisions import decide
from labelmill.model.bundle import ModelCard

__all__ = ["worst_mistakes"]

_NUM_SHOWN = 24


def worst_mistakes(card: ModelCard, answers: Answers, *, num_shown: int = _NUM_SHOWN) -> list[dict[str, Any]]:
    """Wrong answers, worst first, each picture once; as described in `labelmill.evaluate.evaluation`."""
    found = card.confidences(answers.logits)
    decisions = decide(card.task, card.labels, answers.targets, found, card.thresholds)
    wrong = (
        decisions.predicted & ~decisions.truth if card.task == "multi_class" else decisions.predicted ^ decisions.truth
    )
    # How far a confidence is from the truth; 0 for a right answer.
    regrets = np.where(wrong, np.abs(decisions.confidences - decisions.truth), 0.0)
    worst = regrets.max(axis=1)
    rows = np.argsort(-worst, kind="stable")[:num_shown]
    return [_mistake(card, answers, int(row), int(regrets[row].argmax()), found[row]) for row in rows if worst[row] > 0]


def _mistake(
    card: ModelCard, answers: Answers, row: int, column: int, confidences: NDArray[np.float32]
) -> dict[str, Any]:
    true = answers.targets[row].astype(bool)
    wrongly = "false_negative" if true[column] else "false_positive"
    return {
        "uri": answers.examples.uris[row].as_py(),
        "label": card.labels[column],
        "kind": "confused" if card.task == "multi_class" else wrongly,
        "confidence": float(confidences[column]),
        "threshold": None if card.task == "multi_class" else float(card.thresholds[column]),
        "true": [label for label, there in zip(card.labels, true, strict=True) if there],
        "given": [[label, confidence] for label, confidence in card.decide(confidences)],
    }
