"""What a batch's answers cost, by task."""

from torch import Tensor
from torch.nn import functional

__all__ = ["confidences", "loss_sum"]


def loss_sum(task: str, logits: Tensor, targets: Tensor) -> Tensor:
    """Loss summed over the pictures of a batch: cross-entropy for multi_class, binary cross-entropy, its mean over the
    labels, otherwise. `logits` and `targets` are float [B, L]; multi_class targets are one-hot.
    """
    if task == "multi_class":
        return functional.cross_entropy(logits, targets, reduction="sum")
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").mean(dim=1).sum()


def confidences(task: str, logits: Tensor) -> Tensor:
    """Confidences [B, L]: softmax for multi_class, otherwise a sigmoid a label."""
    return logits.softmax(dim=1) if task == "multi_class" else logits.sigmoid()
