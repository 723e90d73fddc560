"""The network of a training run and where it starts from."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from labelmill.spec.nearest import nearest
from labelmill.spec.parts import NAME_PATTERN, Number, Part, Place, Whole, expected
from labelmill.spec.train.catalogue import architectures

__all__ = ["TrainModel"]


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


Architecture = Annotated[str, AfterValidator(_architecture)]
Weights = Annotated[str, AfterValidator(_weights), Place(r"(?!.*\.safetensors$).*")]


class TrainModel(Part):
    """The network and where it starts from."""

    architecture: Architecture = Field(description="timm/<name> or torchvision/<name>.")
    weights: Weights = Field(
        description="Where training starts: pretrained (of the architecture's library), scratch, "
        "<name>@<version> of the registry (labels that it knows keep what it learnt of them), or <path>.safetensors."
    )
    image_size_px: Whole | None = Field(
        default=None,
        ge=16,
        le=2048,
        description="Side of the square that the network sees; without it that of the version it starts from, "
        "or else the architecture's own.",
    )
    dropout: Number | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Share of the features before the head that each step leaves out; without it the architecture's.",
    )
    drop_path: Number | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="Chance that a step skips the deepest residual block, less for those before; without it the "
        "architecture's.",
    )
