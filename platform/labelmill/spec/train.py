"""The spec of a training run."""

import re
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from labelmill.spec.nearest import listing, nearest
from labelmill.spec.parts import (
    NAME_PATTERN,
    MaxPixels,
    Name,
    Number,
    Part,
    RegistryUri,
    Uri,
    Whole,
    conflict,
    expected,
)

__all__ = [
    "Augment",
    "Optimize",
    "Range",
    "Split",
    "TrainData",
    "TrainModel",
    "TrainSpec",
    "Workers",
    "architectures",
]

LABEL_FILES = (".csv", ".jsonl", ".parquet")


@cache
def architectures() -> frozenset[str]:
    """The architectures that a spec may name: `timm/<name>` and `torchvision/<name>`."""
    return frozenset(files("labelmill.spec").joinpath("architectures.txt").read_text("utf-8").split())


def _architecture(value: str) -> str:
    family, _, name = value.partition("/")
    known = architectures()
    # timm lets the name of its pretrained weights follow the architecture: timm/resnet10t.c3_in1k
    if value in known or (family == "timm" and f"timm/{name.partition('.')[0]}" in known):
        return value
    raise expected("an architecture, timm/<name> or torchvision/<name>", suggestion=nearest(value, known))


def _weights(value: str) -> str:
    if value in ("pretrained", "scratch") or value.endswith(".safetensors"):
        return value
    if re.fullmatch(rf"{NAME_PATTERN}@[1-9][0-9]*", value):
        return value
    raise expected(
        "pretrained, scratch, <name>@<version> with a number as version, or <path>.safetensors",
        suggestion=nearest(value, ("pretrained", "scratch")),
    )


def _labels(value: str) -> str:
    if value == "folders" or value.lower().endswith(LABEL_FILES):
        return value
    what = f"folders, or the address of a {listing(LABEL_FILES)} file"
    raise expected(what, suggestion=nearest(value, ("folders",)))


def _crop_scale(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 < value[0] <= value[1] <= 1:
        raise expected("two numbers, smallest first, above 0 and at most 1, such as [0.7, 1.0]")
    return value


Fraction = Annotated[Number, Field(ge=0, le=1)]
Seed = Annotated[Whole, Field(ge=0, le=2**32 - 1)]
Architecture = Annotated[str, AfterValidator(_architecture)]
Weights = Annotated[str, AfterValidator(_weights)]
LabelsAddress = Annotated[str, AfterValidator(_labels)]
CropScale = Annotated[tuple[Number, Number], AfterValidator(_crop_scale)]


class Split(Part):
    """How the pictures are shared out where the labels file has no `split` column. The three add up to 1."""

    train: Fraction = Field(gt=0, description="Share that the network learns from.")
    validation: Fraction = Field(
        gt=0, description="Share that chooses the best epoch, the calibration and the thresholds."
    )
    test: Fraction = Field(description="Share that only measures the result.")
    seed: Seed = Field(default=0, description="The same seed gives the same split.")

    @model_validator(mode="after")
    def _adds_up(self) -> Self:
        total = self.train + self.validation + self.test
        if abs(total - 1) > 1e-6:
            raise expected(f"train, validation and test to add up to 1, and they add up to {total:g}")
        return self


class TrainData(Part):
    """The pictures to learn from and their labels."""

    images: Uri = Field(description="Root of the pictures; relative uris in the labels file start here.")
    labels: LabelsAddress = Field(
        description="A csv, jsonl or parquet file with the columns uri, labels and perhaps split; "
        "or `folders`: the parent folder of a picture is its label."
    )
    positive: str | None = Field(
        default=None, min_length=1, description="With task binary and labels from folders: the folder that means yes."
    )
    split: Split = Split(train=0.8, validation=0.1, test=0.1)


class TrainModel(Part):
    """The network and where it starts from."""

    architecture: Architecture = Field(description="timm/<name> or torchvision/<name>.")
    weights: Weights = Field(
        description="Where training starts: pretrained (of the architecture's library), scratch, "
        "<name>@<version> of the registry, or <path>.safetensors."
    )
    image_size_px: Whole | None = Field(
        default=None,
        ge=16,
        le=2048,
        description="Side of the square that the network sees; without it the architecture's own.",
    )


class Augment(Part):
    """How training varies a picture. Choose what leaves its labels true."""

    flip: Literal["none", "horizontal", "both"] = Field(
        default="horizontal",
        description="Mirror at random: none where left and right differ (digits, text), both for views from above.",
    )
    crop_scale: CropScale = Field(
        default=(0.7, 1.0), description="Smallest and largest share of the picture's area that a random crop keeps."
    )


class Optimize(Part):
    """How long and how fast the network learns."""

    epochs: Whole = Field(ge=1, description="Passes over the training pictures.")
    batch_size: Whole = Field(ge=1, description="Pictures per step, over all workers together.")
    learning_rate: Number = Field(gt=0, description="Highest learning rate, for the whole batch.")
    weight_decay: Number = Field(default=0.05, ge=0, description="Decoupled weight decay.")
    warmup_epochs: Number = Field(default=0.5, ge=0, description="Epochs over which the learning rate rises.")
    seed: Seed = Field(default=0, description="Of the initial weights, the order and the augmentation.")

    @model_validator(mode="after")
    def _warms_up_in_time(self) -> Self:
        if self.warmup_epochs > self.epochs:
            raise conflict("warmup_epochs", f"expected at most epochs ({self.epochs}), got {self.warmup_epochs:g}")
        return self


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
    ] = Field(description="A number, or {min: 1, max: 8}: elastic.")
    cpus: Number = Field(default=1, gt=0, description="CPU cores that each worker reserves.")
    gpus: Number = Field(default=0, ge=0, description="GPUs that each worker reserves.")


class TrainSpec(Part):
    """Train a classifier and publish it to the registry."""

    kind: Literal["train"] = Field(description="This file describes a training run.")
    name: Name = Field(description="The model's name in the registry.")
    registry: RegistryUri
    task: Literal["binary", "multi_class", "multi_label"] = Field(
        description="One yes or no a picture, exactly one label of several, or any number of labels."
    )
    data: TrainData
    model: TrainModel
    augment: Augment = Augment()
    optimize: Optimize
    workers: Workers
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
