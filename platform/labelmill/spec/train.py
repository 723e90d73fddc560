"""The spec of a training run."""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from labelmill.spec.augment import Augment
from labelmill.spec.data import TrainData
from labelmill.spec.network import TrainModel
from labelmill.spec.optimize import Optimize
from labelmill.spec.parts import Fraction, MaxPixels, Name, Number, Part, RegistryUri, Whole, conflict
from labelmill.spec.tracking import Tracking
from labelmill.spec.tune import Tune, check_trials

__all__ = ["Range", "TrainSpec", "Workers"]


class Range(Part):
    """As many as the cluster gives, between two numbers."""

    min: Whole = Field(ge=1, description="Training waits until it has this many.")
    max: Whole = Field(ge=1, description="Training takes no more than this.")

    @model_validator(mode="after")
    def _is_ordered(self) -> Self:
        if self.min > self.max:
            raise conflict("min", f"expected at most max ({self.max}), got {self.min}")
        return self


def _count_or_range(value: Any) -> str:
    return "<range>" if isinstance(value, dict | Range) else "<number>"


class Workers(Part):
    """The training processes. Each reads and decodes its own share of the pictures."""

    count: Annotated[
        Annotated[Whole, Field(ge=1), Tag("<number>")] | Annotated[Range, Tag("<range>")],
        Discriminator(_count_or_range),
    ] = Field(
        description="A number, or {min: 1, max: 8}: elastic. With tune: how many trials train at once, each on one."
    )
    cpus: Number = Field(default=1, gt=0, description="CPU cores that each worker reserves.")
    gpus: Number = Field(default=0, ge=0, description="GPUs that each worker reserves.")
    checkpoint_every_s: Number = Field(
        default=300,
        gt=0,
        description="Within an epoch, seconds between checkpoints: what a lost worker or a killed run costs at most.",
    )


class TrainSpec(Part):
    """Train a classifier and publish it to the registry."""

    kind: Literal["train"] = Field(description="This file describes a training run.")
    name: Name = Field(description="The model's name in the registry.")
    registry: RegistryUri
    task: Literal["binary", "multi_class", "multi_label"] = Field(
        description="One yes or no a picture, exactly one label of several, or any number of labels."
    )
    approach: Literal["fine_tune"] = Field(
        default="fine_tune", description="How the model is made: fine_tune trains the whole network."
    )
    data: TrainData
    model: TrainModel
    augment: Augment = Augment()
    optimize: Optimize = Optimize()
    tune: Tune | None = Field(default=None, description="Search for better values; the best trial is published.")
    workers: Workers = Workers(count=1)
    tracking: Tracking = Tracking()
    promote: Literal["never", "always", "when_better"] = Field(
        default="when_better", description="When the alias `current` moves to the new version."
    )
    max_unreadable_rate: Fraction = Field(
        default=0.05, description="Share of pictures that may be missing or damaged; above it the run stops."
    )
    max_pixels: MaxPixels = 200_000_000

    @model_validator(mode="after")
    def _positive_fits_the_task(self) -> Self:
        positive, by_folders = self.data.positive, self.data.labels == "folders"
        if positive is not None and self.task != "binary":
            raise conflict("data.positive", f"only task binary has a positive label, and task is {self.task}")
        if positive is None and self.task == "binary" and by_folders:
            message = "required with task binary and labels from folders: name the folder that means yes"
            raise conflict("data.positive", message)
        return self

    @model_validator(mode="after")
    def _loss_fits_the_task(self) -> Self:
        loss = self.optimize.loss
        if loss.name == "asymmetric" and self.task == "multi_class":
            message = "is for labels that stand each alone, and task is multi_class: take cross_entropy or focal"
            raise conflict("optimize.loss.name", f"asymmetric {message}")
        if loss.positive_weights != "none" and self.task == "multi_class":
            message = "no label is absent on its own with task multi_class: take class_weights"
            raise conflict("optimize.loss.positive_weights", message)
        if loss.class_weights != "none" and self.task == "binary":
            message = "there is one label with task binary: take positive_weights"
            raise conflict("optimize.loss.class_weights", message)
        return self

    @model_validator(mode="after")
    def _freezes_what_was_learnt(self) -> Self:
        if self.optimize.freeze != "none" and self.model.weights == "scratch":
            message = f"{self.optimize.freeze} keeps what a network knows, and model.weights is scratch"
            raise conflict("optimize.freeze", message)
        return self

    @model_validator(mode="after")
    def _every_trial_is_a_spec(self) -> Self:
        if self.tune is not None:
            if self.approach != "fine_tune":
                raise conflict("tune", f"only approach fine_tune can be searched, and approach is {self.approach}")
            check_trials(self)
        return self
