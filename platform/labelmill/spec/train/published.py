"""Models that are made of published ones: smaller, faster, or several in one."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from labelmill.spec.parts import NAME_PATTERN, Fraction, Number, Part, Whole, expected

__all__ = ["Average", "Distill", "Ensemble", "Prune", "Published", "Quantize"]


def _published(value: str) -> str:
    # Not an alias: it may move, and the run's digest would not show that the same spec now means another model.
    if re.fullmatch(rf"{NAME_PATTERN}@[1-9][0-9]*", value):
        return value
    raise expected("<name>@<version> with a number as version, such as digits@3")


def _at_least(count: int, words: str) -> AfterValidator:
    def check(values: tuple[str, ...]) -> tuple[str, ...]:
        if len(values) < count or len(set(values)) < len(values):
            raise expected(f"{words} different models")
        return values

    return AfterValidator(check)


Published = Annotated[str, AfterValidator(_published)]
Several = Annotated[tuple[Published, ...], _at_least(2, "two or more")]
MaxLoss = Annotated[
    Fraction,
    Field(
        description="What it may cost in the run's headline metric (accuracy, or mean average precision), on the "
        "pictures that measure the result; a model that loses more is not published."
    ),
]


class Quantize(Part):
    """A published model in 8-bit integers, by the ranges its layers take on training pictures; nothing is trained."""

    model: Published = Field(description="The published model, <name>@<version>.")
    num_pictures: Whole = Field(default=300, ge=1, description="Training pictures that set the ranges of the layers.")
    max_accuracy_loss: MaxLoss = 0.01


class Prune(Part):
    """A published model without the weakest channels inside its blocks, trained again by `optimize` and `augment`."""

    model: Published = Field(description="The published model, <name>@<version>.")
    share: Number = Field(
        default=0.3, ge=0.05, le=0.9, description="Share of the channels inside each block that is removed."
    )
    max_accuracy_loss: MaxLoss = 0.02


class Ensemble(Part):
    """Several published models that answer as one: the mean of their confidences."""

    models: Several = Field(description="The published models, <name>@<version> each.")


class Average(Part):
    """Published models of one architecture, their weights averaged: as fast as one of them."""

    models: Several = Field(
        description="The published models, <name>@<version> each: fine-tuned from one starting point."
    )
    recipe: Literal["greedy", "uniform"] = Field(
        default="greedy",
        description="uniform takes all of them; greedy, beginning with the best, only those that help on the "
        "validation pictures.",
    )


class Distill(Part):
    """Published models that teach the network while it trains: it learns their confidences beside the labels."""

    teachers: Annotated[tuple[Published, ...], _at_least(1, "one or more")] = Field(
        description="The published models, <name>@<version> each; several teach the mean of their confidences."
    )
    temperature: Number = Field(
        default=4, gt=0, description="Softens the confidences: above 1, what resembles what shows more."
    )
    weight: Fraction = Field(default=0.5, gt=0, description="The teachers' part of the loss; the labels have the rest.")
