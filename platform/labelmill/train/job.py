"""What a training run is, as every worker is told."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from labelmill.spec import TrainModel, TrainSpec
from labelmill.storage.lease import Fence

__all__ = ["Job"]


@dataclass(frozen=True)
class Job:
    """`labels` are in the order of the logits; every address in it is absolute. `source` is what decides the run: that
    part of the spec. `fence` is that of the run's lease: to be checked before anything is kept in the run's folder.
    """

    spec: TrainSpec
    labels: tuple[str, ...]
    run_uri: str
    source: Mapping[str, Any] = field(default_factory=dict)
    fence: Fence | None = None

    def check_fence(self) -> None:
        """FencedError: another process goes on with this run."""
        if self.fence is not None:
            self.fence.check()

    @property
    def model(self) -> TrainModel:
        """The network to train; approaches that train nothing have none, and do not ask."""
        assert self.spec.model is not None
        return self.spec.model
