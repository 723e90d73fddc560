"""Evaluations to draw pages from, made by the real metrics from answers that are right more often than not."""

from typing import Any

import numpy as np
import pyarrow as pa

from labelmill.dataset import Examples
from labelmill.evaluate.answers import Answers
from labelmill.evaluate.evaluation import evaluation_of
from labelmill.images.transform import Preprocessing
from labelmill.model.bundle import ModelCard

__all__ = ["made_card", "made_evaluation", "made_robustness"]


def made_card(task: str, labels: tuple[str, ...], **card: Any) -> ModelCard:
    facts = {
        "thresholds": () if task == "multi_class" else tuple(np.linspace(0.3, 0.6, len(labels)).tolist()),
        "calibration": {"temperature": 1.6},
        "metrics": {},
        "data_fingerprint": "0" * 64,
        "spec": {"kind": "train", "name": "made"},
        "library_versions": {"labelmill": "1"},
    }
    return ModelCard(
        task=task, architecture="timm/test_resnet", labels=labels, preprocessing=Preprocessing(32), **(facts | card)
    )


def made_evaluation(
    task: str,
    labels: tuple[str, ...],
    *,
    num_pictures: int = 300,
    slices: tuple[str, ...] = (),
    unreadable: dict[str, str] | None = None,
    uri: str = "/pictures/{}.jpg",
    **card: Any,
) -> dict[str, Any]:
    """What a model of some skill gets; label i is i times rarer than the first."""
    rng = np.random.default_rng(0)
    shares = 1 / np.arange(1, len(labels) + 1)
    if task == "multi_class":
        targets = np.eye(len(labels))[rng.choice(len(labels), num_pictures, p=shares / shares.sum())]
    else:
        targets = rng.random((num_pictures, len(labels))) < shares * 0.6
    logits = 3.5 * targets - 1.5 + rng.normal(0, 1.6, targets.shape)
    uris = pa.array([uri.format(number) for number in range(num_pictures)])
    named = pa.array([slices[number % len(slices)] for number in range(num_pictures)]) if slices else None
    examples = Examples(uris, uris, targets.astype(np.uint8), named)
    answers = Answers(examples, logits.astype(np.float32), unreadable or {})
    model = {"name": "made", "version": 3, "digest": "0" * 64}
    robustness = made_robustness(0.9) if slices else None
    return evaluation_of(made_card(task, labels, **card), answers, split="test", model=model, robustness=robustness)


def made_robustness(clean: float) -> dict[str, Any]:
    """Worse by the strength, and by how much is another slope for each corruption."""

    def numbers(value: float) -> dict[str, float]:
        return dict.fromkeys(("accuracy", "macro_f1", "map", "ece"), value)

    def steps(slope: float) -> list[dict[str, Any]]:
        return [
            {"strength": step, "amount": step, "unit": "px"} | numbers(clean - slope * step) for step in range(1, 6)
        ]

    slopes = {"blur": 0.1, "noise": 0.06, "jpeg": 0.03, "brightness": 0.01}
    return {"num_pictures": 100, "clean": numbers(clean)} | {kind: steps(slope) for kind, slope in slopes.items()}
