"""What a batch's answers cost, by task."""

from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from labelmill.spec import Loss
from labelmill.train.feed.balance import class_weights, positive_weights
from labelmill.train.job import Job

__all__ = ["Objective", "build_objective", "confidences"]

_TINY = 1e-8  # below it a power's slope is no number any more


class Objective(Protocol):
    """What training makes small: the loss summed over the pictures of a batch, a scalar in float32.

    `logits` and `targets` are float32 [B, L]; targets may lie between 0 and 1 where pictures were mixed. `pixels`, as
    the network saw them, normalised [B, 3, S, S], are for an objective that asks another network about them.
    """

    def __call__(self, logits: Tensor, targets: Tensor, pixels: Tensor) -> Tensor: ...


def build_objective(job: Job, targets: NDArray[np.uint8], device: torch.device) -> Objective:
    """The objective that the spec asks for; `targets` [N, L] are those of all training pictures."""
    task, loss = job.spec.task, job.spec.optimize.loss
    weights = torch.from_numpy(class_weights(loss, job.labels, targets)).to(device)
    if task != "multi_class":
        weights = weights / len(job.labels)  # the mean over labels
    positives = torch.from_numpy(positive_weights(loss, job.labels, targets)).to(device)

    def objective(logits: Tensor, targets: Tensor, pixels: Tensor) -> Tensor:
        targets = _smoothed(task, targets, loss.label_smoothing)
        if task == "multi_class":
            return (weights * targets * _cost_of_class(loss, logits)).sum()
        present, absent = _costs_of_labels(loss, logits)
        return (weights * (positives * targets * present + (1 - targets) * absent)).sum()

    return objective


def confidences(task: str, logits: Tensor) -> Tensor:
    """Confidences [B, L]: softmax for multi_class, otherwise a sigmoid a label."""
    return logits.softmax(dim=1) if task == "multi_class" else logits.sigmoid()


def _smoothed(task: str, targets: Tensor, share: float) -> Tensor:
    """Szegedy et al., Rethinking the Inception Architecture, 2016; a label on its own goes towards one half."""
    even = 1 / targets.shape[1] if task == "multi_class" else 0.5
    return targets * (1 - share) + share * even if share else targets


def _cost_of_class(loss: Loss, logits: Tensor) -> Tensor:
    """What it costs [B, L] when this is the class; focal by Lin et al., Focal Loss for Dense Object Detection, 2017."""
    log_confidence = functional.log_softmax(logits, dim=1)
    if loss.name == "focal":
        return -log_confidence * (1 - log_confidence.exp()).clamp(min=_TINY) ** loss.gamma
    return -log_confidence


def _costs_of_labels(loss: Loss, logits: Tensor) -> tuple[Tensor, Tensor]:
    """What it costs [B, L] when the label is there, and when it is not.

    Asymmetric by Ridnik et al., Asymmetric Loss for Multi-Label Classification, 2021.
    """
    log_yes, log_no = functional.logsigmoid(logits), functional.logsigmoid(-logits)
    if loss.name == "focal":
        return -log_yes * (loss.gamma * log_no).exp(), -log_no * (loss.gamma * log_yes).exp()
    if loss.name == "asymmetric":
        shifted = (log_yes.exp() - loss.margin).clamp(min=_TINY)
        return -log_yes * (loss.gamma_positive * log_no).exp(), -torch.log1p(-shifted) * shifted**loss.gamma_negative
    return -log_yes, -log_no
