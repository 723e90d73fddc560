"""The workers that train together, seen from one of them."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

__all__ = ["Team"]


@dataclass(frozen=True)
class Team:
    """This worker's place among those that train together, and what it computes on."""

    rank: int
    size: int
    device: torch.device

    def share(self, network: nn.Module) -> None:
        """Give every worker the first one's weights and running statistics."""
        if self.size > 1:
            for tensor in network.state_dict().values():
                dist.broadcast(tensor, src=0)

    def join(self, network: nn.Module) -> nn.Module:
        """The network with its gradients averaged over the team at every backward."""
        if self.size == 1:
            return network
        return DistributedDataParallel(network, broadcast_buffers=False, gradient_as_bucket_view=True)

    def averaging(self, model: nn.Module, *, now: bool) -> AbstractContextManager[Any]:
        """Around forward and backward: whether the gradients are averaged over the team now, or only gathered."""
        return nullcontext() if now or not isinstance(model, DistributedDataParallel) else model.no_sync()

    def mean(self, values: Tensor) -> Tensor:
        if self.size > 1:
            dist.all_reduce(values)
        return values / self.size

    def gather(self, value: Any) -> list[Any]:
        """Every worker's value, in order of rank, at every worker."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values
