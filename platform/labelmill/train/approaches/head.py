"""A last layer for frozen features: fitted exactly, its one free number chosen by cross-validation."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["Head", "Seen", "best_head"]

_PENALTIES = (10.0, 1.0, 0.1, 0.01, 1e-3, 1e-4)  # strongest first: each fit starts where the one before it ended
_SCALES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)
_MAX_STEPS = 100


@dataclass(frozen=True)
class Head:
    """`weight` [L, D] and `bias` [L]: what a linear layer holds."""

    weight: Tensor
    bias: Tensor

    def logits(self, features: Tensor) -> Tensor:
        return features @ self.weight.T + self.bias


@dataclass(frozen=True)
class Seen:
    """What a frozen network saw in some pictures: features [N, D] and targets [N, L], both float32."""

    features: Tensor
    targets: Tensor


def best_head(
    approach: Literal["linear_probe", "prototype"], task: str, folds: Sequence[Seen]
) -> tuple[Head, dict[str, Any]]:
    """The head that learns from all folds, as strong as was best for those that were held out; and what was tried.

    linear_probe is logistic regression (of one label against the others where labels stand alone) with an L2 penalty,
    the usual measure of features (Kornblith et al., 2019, Do Better ImageNet Models Transfer Better?). prototype is the
    nearest mean of a label's features by Euclidean distance, which is linear in the features, and so a head like any
    other (Snell et al., 2017, Prototypical Networks for Few-shot Learning). Both see features brought to mean 0 and
    deviation 1. Held-out loss chooses the penalty, or how fast confidence falls with distance. Of a single fold nothing
    can be held out: the middle is taken.
    """
    fit, strengths, name = _APPROACHES[approach]
    found: dict[str, Any] = {}
    chosen = len(strengths) // 2
    if len(folds) > 1:
        losses = torch.stack([_held_out_losses(fit, task, folds, index) for index in range(len(folds))]).mean(dim=0)
        chosen = int(losses.argmin())
        found["held_out_loss"] = {
            f"{strength:g}": float(loss) for strength, loss in zip(strengths, losses, strict=True)
        }
    return _fitted(fit, task, _together(folds))[chosen], {name: strengths[chosen], **found}


def _held_out_losses(fit: "_Fit", task: str, folds: Sequence[Seen], held_out: int) -> Tensor:
    rest = _together([fold for index, fold in enumerate(folds) if index != held_out])
    seen = folds[held_out]
    return torch.stack([_loss(task, head.logits(seen.features), seen.targets) for head in _fitted(fit, task, rest)])


def _together(folds: Sequence[Seen]) -> Seen:
    return Seen(torch.cat([fold.features for fold in folds]), torch.cat([fold.targets for fold in folds]))


def _fitted(fit: "_Fit", task: str, seen: Seen) -> list[Head]:
    """A head for every strength; the scaling of the features is made part of it."""
    mean, deviation = seen.features.mean(dim=0), seen.features.std(dim=0, correction=0)
    floor = 1e-3 * float(deviation.mean()) + 1e-12  # a feature that is always the same says nothing
    scale = 1 / deviation.clamp(min=floor)
    heads = fit(task, Seen((seen.features - mean) * scale, seen.targets))
    return [Head(head.weight * scale, head.bias - head.weight @ (scale * mean)) for head in heads]


def _linear_probes(task: str, seen: Seen) -> Iterator[Head]:
    num_labels, num_features = seen.targets.shape[1], seen.features.shape[1]
    head = Head(torch.zeros(num_labels, num_features), torch.zeros(num_labels))
    for penalty in _PENALTIES:
        head = _descend(task, seen, penalty, head)
        yield head


def _descend(task: str, seen: Seen, penalty: float, start: Head) -> Head:
    weight, bias = (tensor.clone().requires_grad_() for tensor in (start.weight, start.bias))
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=_MAX_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        loss = _loss(task, Head(weight, bias).logits(seen.features), seen.targets) + penalty / 2 * weight.square().sum()
        torch.autograd.backward(loss)
        return loss

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return Head(weight.detach(), bias.detach())


def _prototypes(task: str, seen: Seen) -> Iterator[Head]:
    """The logit of a label is how much nearer its mean is; of several, minus the distance, of one that stands alone,
    the distance to the mean of the pictures without it less the distance to the mean of those with it."""
    here = _means(seen.features, seen.targets)
    weight, bias = 2 * here, -here.square().sum(dim=1)
    if task != "multi_class":
        elsewhere = _means(seen.features, 1 - seen.targets)
        weight, bias = weight - 2 * elsewhere, bias + elsewhere.square().sum(dim=1)
    for scale in _SCALES:
        yield Head(weight * scale / weight.shape[1], bias * scale / weight.shape[1])


def _means(features: Tensor, targets: Tensor) -> Tensor:
    """Mean features [L, D] of each label's pictures; of a label without any, zeros, which is the mean of all."""
    return targets.T @ features / targets.sum(dim=0).clamp(min=1)[:, None]


def _loss(task: str, logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the pictures; of labels that stand alone the sum, so that each is a fit of its own."""
    if task == "multi_class":
        return functional.cross_entropy(logits, targets)
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(dim=1).mean()


_Fit = Callable[[str, Seen], Iterator[Head]]
_APPROACHES: dict[str, tuple[_Fit, Sequence[float], str]] = {
    "linear_probe": (_linear_probes, _PENALTIES, "penalty"),
    "prototype": (_prototypes, _SCALES, "scale"),
}
