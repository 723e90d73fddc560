"""How long, how fast and by which loss a network learns."""

from typing import Self

from pydantic import Field, model_validator

from labelmill.spec.parts import Number, Part, Seed, Whole, conflict

__all__ = ["Optimize"]


class Optimize(Part):
    """How long and how fast the network learns."""

    epochs: Whole = Field(default=10, ge=1, description="Passes over the training pictures.")
    batch_size: Whole = Field(default=64, ge=1, description="Pictures per step, over all workers together.")
    learning_rate: Number = Field(default=1e-3, gt=0, description="Highest learning rate, for the whole batch.")
    weight_decay: Number = Field(default=0.05, ge=0, description="Decoupled weight decay.")
    warmup_epochs: Number = Field(default=0.5, ge=0, description="Epochs over which the learning rate rises.")
    seed: Seed = Field(default=0, description="Of the initial weights, the order and the augmentation.")

    @model_validator(mode="after")
    def _warms_up_in_time(self) -> Self:
        if self.warmup_epochs > self.epochs:
            raise conflict("warmup_epochs", f"expected at most epochs ({self.epochs}), got {self.warmup_epochs:g}")
        return self
