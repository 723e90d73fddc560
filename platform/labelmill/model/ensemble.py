"""Several networks that answer as one: the mean of their confidences.

An ensemble is a network like any other, so what converts, labels, serves and evaluates needs to know nothing of it. Its
architecture says of which networks it is made, "ensemble:timm/resnet18+timm/vit_tiny_patch16_224"; a member that sees
smaller pictures than the ensemble stands there with their side, "timm/resnet18@192". Its weights are those of the
members, and buffers hold what a member's bundle said of normalisation and calibration.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["Ensemble", "Member", "ensemble_architecture", "ensemble_members"]

_PREFIX = "ensemble:"


@dataclass(frozen=True)
class Member:
    """`image_size_px` is None where the member sees pictures of the ensemble's own size."""

    architecture: str
    image_size_px: int | None


def ensemble_members(architecture: str) -> list[Member]:
    """The members that an ensemble's architecture names; none when it is that of a single network."""
    if not architecture.startswith(_PREFIX):
        return []
    parts = [part.partition("@") for part in architecture.removeprefix(_PREFIX).split("+")]
    return [Member(name, int(size) if size else None) for name, _, size in parts]


def ensemble_architecture(members: Sequence[Member]) -> str:
    """What `ensemble_members` takes apart."""
    sizes = [f"@{member.image_size_px}" if member.image_size_px else "" for member in members]
    return _PREFIX + "+".join(member.architecture + size for member, size in zip(members, sizes, strict=True))


class Ensemble(nn.Module):
    """Pixels [B, 3, S, S] between 0 and 1 to logits [B, L], whose softmax (where labels exclude one another) or sigmoid
    is the mean of the members' calibrated confidences.

    Buffers, a row a member: `mean` and `std` [M, 3]; `slopes` and `intercepts` [M, L], by which a member's logits
    become calibrated ones; and `exclusive`, 1 where the labels exclude one another.
    """

    mean: Tensor
    std: Tensor
    slopes: Tensor
    intercepts: Tensor
    exclusive: Tensor

    def __init__(self, networks: Sequence[nn.Module], sizes_px: Sequence[int | None], num_logits: int) -> None:
        super().__init__()
        self.members = nn.ModuleList(networks)
        self._sizes_px = tuple(sizes_px)
        self.register_buffer("mean", torch.zeros(len(networks), 3))
        self.register_buffer("std", torch.ones(len(networks), 3))
        self.register_buffer("slopes", torch.ones(len(networks), num_logits))
        self.register_buffer("intercepts", torch.zeros(len(networks), num_logits))
        self.register_buffer("exclusive", torch.zeros(()))

    def forward(self, pixels: Tensor) -> Tensor:
        logits = torch.stack([self._logits(index, pixels) for index in range(len(self.members))])  # [M, B, L]
        calibrated = logits.float() * self.slopes[:, None] + self.intercepts[:, None]
        # In logarithms: as a number, a confidence next to 0 or 1 has no digits left.
        exclusive = self._log_mean(functional.log_softmax(calibrated, dim=2))
        alone = self._log_mean(functional.logsigmoid(calibrated)) - self._log_mean(functional.logsigmoid(-calibrated))
        return torch.where(self.exclusive > 0, exclusive, alone)

    def _logits(self, index: int, pixels: Tensor) -> Tensor:
        if size_px := self._sizes_px[index]:
            pixels = functional.interpolate(pixels, (size_px, size_px), mode="bilinear", antialias=True)
        normalised = (pixels - self.mean[index].view(3, 1, 1)) / self.std[index].view(3, 1, 1)
        logits: Tensor = self.members[index](normalised)
        return logits

    def _log_mean(self, logarithms: Tensor) -> Tensor:
        """Logarithm of the mean over the members of what [M, B, L] are the logarithms of."""
        return logarithms.logsumexp(dim=0) - math.log(len(self.members))
