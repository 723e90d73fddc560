"""What a training run is, as every worker is told."""

from dataclasses import dataclass

from labelmill.spec import TrainModel, TrainSpec

__all__ = ["Job"]


@dataclass(frozen=True)
class Job:
    """`labels` are in the order of the logits; every address in it is absolute."""

    spec: TrainSpec
    labels: tuple[str, ...]
    run_uri: str

    @property
    def model(self) -> TrainModel:
        """The network to train; approaches that train nothing have none, and do not ask."""
        assert self.spec.model is not None
        return self.spec.model
