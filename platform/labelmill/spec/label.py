"""The spec of a label job."""

from typing import Literal, Self

from pydantic import Field, model_validator

from labelmill.spec.parts import (
    Engine,
    MaxPixels,
    ModelReference,
    Name,
    Number,
    Part,
    RegistryUri,
    Uri,
    Whole,
    conflict,
    lies_inside,
)

__all__ = ["LabelSpec"]


class LabelSpec(Part):
    """Make a label table agree with an image store, for one model."""

    kind: Literal["label"] = Field(description="This file describes a label job.")
    name: Name = Field(description="What this job is called in receipts and logs.")
    registry: RegistryUri
    model: ModelReference = Field(description="<name>@<version> or <name>@<alias>; resolved once, when the job starts.")
    images: Uri = Field(description="The prefix to list; every object under it is a picture.")
    output: Uri = Field(description="The label table, a Delta Lake table; made when it is not there.")
    scores: Literal["none", "top_k", "all"] = Field(
        default="none", description="Raw confidences kept beside the labels, so that thresholds can change later."
    )
    max_failure_rate: Number = Field(
        default=0.05,
        ge=0,
        le=1,
        description="Share of the pictures tried that may fail, from 200 pictures on; "
        "above it the run stops and keeps what it committed.",
    )
    engine: Engine = "auto"
    batch_size: Whole = Field(default=32, ge=1, le=4096, description="Pictures that the network sees at once.")
    max_pixels: MaxPixels = 200_000_000

    @model_validator(mode="after")
    def _output_is_no_input(self) -> Self:
        if lies_inside(self.output, self.images):
            message = f"expected a place outside images ({self.images!r}), which would list its files as pictures"
            raise conflict("output", message)
        return self
