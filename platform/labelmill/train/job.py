"""What a training run is, as every worker is told."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from labelmill.spec import TrainModel, TrainSpec

__all__ = ["Job"]


@dataclass(frozen=True)
class Job:
    """`labels` are in the order of the logits; every address in it is absolute. `source` is what decides the run, as it
    was written: the spec before substitution.
    """

    spec: TrainSpec
    labels: tuple[str, ...]
    run_uri: str
    source: Mapping[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> TrainModel:
        """The network to train; approaches that train nothing have none, and do not ask."""
        assert self.spec.model is not None
        return self.spec.model
