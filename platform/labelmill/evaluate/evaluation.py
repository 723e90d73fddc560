"""Everything there is to say about how good a model is on given pictures, as plain JSON values.

A bundle holds it as `evaluation.json`, and `kind: evaluate` writes the same. The reports are drawn from it.

    format_version               1
    model                        {name, version or None for one that is just being made, digest or None, architecture,
                                 image_size_px}
    task, labels                 of the model, in the order of all matrices
    thresholds                   one a label; multi_class: may be empty
    calibration                  as in the bundle: None, {temperature} or {slopes, intercepts}
    split                        "test", "validation" or "all": which pictures these were
    metrics                      `metrics.evaluate`
    intervals                    `metrics.intervals`
    confusion                    `metrics.confusion`
    threshold_curves             `metrics.threshold_curves`
    reliability                  `metrics.reliability`
    uncalibrated                 `metrics.reliability` of the same logits without the calibration; None without one
    slices                       {slice: the metrics without per_label, and intervals: {metric: [low, high] or None}},
                                 largest first; {} where the pictures carry none
    robustness                   {num_pictures, clean: numbers, blur, noise, jpeg, brightness: [{strength: 1 to 5,
                                 amount, unit, and numbers} x 5]}, numbers being accuracy, macro_f1, map, ece;
                                 None where it was not asked for
    mistakes                     the 24 worst, worst first: [{uri, label, kind, confidence, threshold, true: [labels],
                                 given: [[label, confidence]]}]. kind is "false_positive" (label was given wrongly),
                                 "false_negative" (label was missed) or "confused" (multi_class: label is the wrong one
                                 that was given). confidence is that of label; threshold is None for multi_class.
    num_unreadable, unreadable   how many pictures could not be read; {uri: reason} of the first hundred
"""

from typing import Any

from labelmill.evaluate.answers import Answers, measure
from labelmill.evaluate.mistakes import worst_mistakes
from labelmill.evaluate.slices import measure_slices
from labelmill.metrics import confusion, intervals, reliability, threshold_curves
from labelmill.model.bundle import ModelCard
from labelmill.model.calibration import confidences

__all__ = ["EVALUATION_NAME", "evaluation_of"]

EVALUATION_NAME = "evaluation.json"

_FORMAT_VERSION = 1
_NUM_UNREADABLE_SHOWN = 100


def evaluation_of(
    card: ModelCard,
    answers: Answers,
    *,
    split: str,
    model: dict[str, Any],
    robustness: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """The page's worth of numbers described above, of answers that a labeler gave for the card's network."""
    given = card.task, card.labels, answers.targets, card.confidences(answers.logits), card.thresholds
    _, labels, targets, calibrated, _ = given
    raw = confidences(card.task, answers.logits, None)
    return {
        "format_version": _FORMAT_VERSION,
        "model": {**model, "architecture": card.architecture, "image_size_px": card.preprocessing.image_size_px},
        "task": card.task,
        "labels": list(labels),
        "thresholds": list(card.thresholds),
        "calibration": card.calibration,
        "split": split,
        "metrics": measure(card, answers),
        "intervals": intervals(*given),
        "confusion": confusion(*given),
        "threshold_curves": threshold_curves(labels, targets, calibrated),
        "reliability": reliability(card.task, targets, calibrated),
        "uncalibrated": reliability(card.task, targets, raw) if card.calibration else None,
        "slices": measure_slices(card, answers),
        "robustness": robustness,
        "mistakes": worst_mistakes(card, answers),
        "num_unreadable": len(answers.unreadable),
        "unreadable": dict(sorted(answers.unreadable.items())[:_NUM_UNREADABLE_SHOWN]),
    }
