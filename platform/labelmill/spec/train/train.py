"""The spec of a training run."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, Tag, model_validator

from labelmill.spec.parts import (
    Fraction,
    MaxPixels,
    MaxRequests,
    Name,
    Number,
    Part,
    RegistryUri,
    RobustnessPictures,
    Whole,
    conflict,
)
from labelmill.spec.schedule import Notify, Schedule
from labelmill.spec.train.adapt import Adapt
from labelmill.spec.train.augment import Augment
from labelmill.spec.train.data import TrainData
from labelmill.spec.train.few_shot import FewShot
from labelmill.spec.train.network import TrainModel
from labelmill.spec.train.optimize import Optimize
from labelmill.spec.train.published import Average, Distill, Ensemble, Prune, Quantize
from labelmill.spec.train.thresholds import ThresholdRules
from labelmill.spec.train.tracking import Tracking
from labelmill.spec.train.tune import Tune, check_trials

__all__ = ["Range", "TrainSpec", "Workers"]

# The blocks that not every approach reads, and who reads them: elsewhere they are refused, not ignored.
_READERS: Mapping[str, tuple[str, ...]] = {
    "model": ("fine_tune", "linear_probe", "prototype"),
    "augment": ("fine_tune", "linear_probe", "prototype", "prune"),
    "optimize": ("fine_tune", "prune"),
    "workers": ("fine_tune", "prune"),
    "distill": ("fine_tune", "prune"),
    "tune": ("fine_tune",),
    "few_shot": ("linear_probe", "prototype"),
    "adapt": ("adapt",),
    "quantize": ("quantize",),
    "prune": ("prune",),
    "ensemble": ("ensemble",),
    "average": ("average",),
}
# What an approach cannot do without.
_NEEDS: Mapping[str, str] = {
    "fine_tune": "model",
    "linear_probe": "model",
    "prototype": "model",
    "adapt": "adapt",
    "quantize": "quantize",
    "prune": "prune",
    "ensemble": "ensemble",
    "average": "average",
}


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
    approach: Literal["fine_tune", "linear_probe", "prototype", "adapt", "quantize", "prune", "ensemble", "average"] = (
        Field(
            default="fine_tune",
            description="How the model is made: fine_tune trains the network; linear_probe and prototype fit a last "
            "layer to the frozen features of few pictures; the others start from published models, each with a block "
            "of its name.",
        )
    )
    data: TrainData
    model: TrainModel | None = Field(default=None, description="The network to train.")
    augment: Augment = Augment()
    few_shot: FewShot = FewShot()
    adapt: Adapt | None = Field(default=None, description="With approach adapt: what is adapted, and to what.")
    optimize: Optimize = Optimize()
    tune: Tune | None = Field(default=None, description="Search for better values; the best trial is published.")
    workers: Workers = Workers(count=1)
    distill: Distill | None = Field(default=None, description="Published models that teach the network.")
    quantize: Quantize | None = Field(default=None, description="With approach quantize: what becomes 8-bit integers.")
    prune: Prune | None = Field(default=None, description="With approach prune: what loses channels.")
    ensemble: Ensemble | None = Field(default=None, description="With approach ensemble: what answers together.")
    average: Average | None = Field(default=None, description="With approach average: whose weights are averaged.")
    calibration: Literal["auto", "none", "temperature", "per_label"] = Field(
        default="auto",
        description="How confidences are made to mean what they say, by the validation pictures: by one temperature, "
        "or per_label by a slope and an intercept each; auto is temperature for multi_class, else per_label.",
    )
    thresholds: ThresholdRules = ThresholdRules()
    robustness_pictures: RobustnessPictures = 0
    tracking: Tracking = Tracking()
    promote: Literal["never", "always", "when_better"] = Field(
        default="when_better", description="When the alias `current` moves to the new version."
    )
    max_unreadable_rate: Fraction = Field(
        default=0.05, description="Share of pictures that may be missing or damaged; above it the run stops."
    )
    max_pixels: MaxPixels = 200_000_000
    max_requests_per_s: MaxRequests = None
    schedule: Schedule | None = Field(default=None, description="When it runs by itself, by `labelmill deploy`.")
    notify: Notify | None = Field(default=None, description="Who hears how a run ended.")

    @model_validator(mode="after")
    def _pictures_grow_in_time(self) -> Self:
        if self.augment.start_size < 1 and self.optimize.epochs < 2:
            raise conflict("augment.start_size", "expected 1 where optimize.epochs is 1: the last epoch has full size")
        return self

    @model_validator(mode="after")
    def _decisions_fit_the_task(self) -> Self:
        if self.task == "multi_class" and self.thresholds != ThresholdRules():
            raise conflict("thresholds", "task multi_class gives each picture its top label, whatever the thresholds")
        if self.task == "multi_class" and self.calibration == "per_label":
            message = "task multi_class has confidences that sum to one: write temperature, or leave it out"
            raise conflict("calibration", message)
        return self

    @model_validator(mode="after")
    def _positive_fits_the_task(self) -> Self:
        positive = self.data.positive
        by_folders = "folders" in (self.data.labels, *(source.labels for source in self.data.sources))
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
        if self.optimize.freeze != "none" and self.model and self.model.weights == "scratch":
            message = f"{self.optimize.freeze} keeps what a network knows, and model.weights is scratch"
            raise conflict("optimize.freeze", message)
        return self

    @model_validator(mode="after")
    def _approach_has_its_blocks_and_no_others(self) -> Self:
        needed = _NEEDS.get(self.approach)
        if needed and getattr(self, needed) is None:
            raise conflict(needed, f"required, and missing: approach {self.approach} reads it")
        for block, readers in _READERS.items():
            if block in self.model_fields_set and getattr(self, block) is not None and self.approach not in readers:
                message = f"approach {self.approach} does not read it: remove it, or set approach: "
                raise conflict(block, message + " or ".join(readers))
        return self

    @model_validator(mode="after")
    def _frozen_features_are_worth_something(self) -> Self:
        if self.approach in ("linear_probe", "prototype") and self.model and self.model.weights == "scratch":
            message = f"approach {self.approach} keeps the features as they are, and a network from scratch has none: "
            raise conflict("model.weights", f"{message}name a version, pretrained, or a .safetensors file")
        return self

    @model_validator(mode="after")
    def _every_trial_is_a_spec(self) -> Self:
        if self.tune is not None:
            if self.approach != "fine_tune":
                raise conflict("tune", f"only approach fine_tune can be searched, and approach is {self.approach}")
            check_trials(self)
        return self

    @property
    def published(self) -> tuple[str, ...]:
        """The published models that this one is made of or learns from, <name>@<version> each."""
        one = [part.model for part in (self.adapt, self.quantize, self.prune) if part]
        several = [part.models for part in (self.ensemble, self.average) if part]
        return (*one, *(name for names in several for name in names), *(self.distill.teachers if self.distill else ()))
