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
    """Make a label table agree with an image store, for one model or several."""

    kind: Literal["label"] = Field(description="This file describes a label job.")
    name: Name = Field(description="What this job is called in receipts and logs.")
    registry: RegistryUri
    model: ModelReference | None = Field(
        default=None, description="<name>@<version> or <name>@<alias>; resolved once, when the job starts."
    )
    models: list[ModelReference] | None = Field(
        default=None,
        min_length=1,
        max_length=16,
        description="Instead of model: several, which label each picture in one pass, with rows of its own for each.",
    )
    images: Uri = Field(description="The prefix to list; every object under it is a picture.")
    output: Uri = Field(description="The label table, a Delta Lake table; made when it is not there.")
    scores: Literal["none", "top_k", "all"] = Field(
        default="none", description="Raw confidences kept beside the labels, so that thresholds can change later."
    )
    embeddings: bool = Field(
        default=False, description="Keep the network's pooled features beside the labels, in float16 precision."
    )
    retry: list[Literal["unreadable", "unsupported", "too_large", "crashed", "timed_out"]] = Field(
        default=[],
        description="Statuses to try again although they are final: every run with this does, until it is taken out.",
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
    timeout_s: Number = Field(
        default=60,
        gt=0,
        description="Seconds that decoding and labelling one picture may take; longer, and it is timed_out.",
    )

    @property
    def references(self) -> list[str]:
        """All models of the job, as the spec names them."""
        return self.models if self.models else [self.model] if self.model else []

    @model_validator(mode="after")
    def _models_are_said_once(self) -> Self:
        if bool(self.model) == bool(self.models):
            raise conflict("model", "expected either model or models: what shall label the pictures?")
        if len(set(self.references)) < len(self.references):
            raise conflict("models", f"expected each model once, got {', '.join(self.references)}")
        return self

    @model_validator(mode="after")
    def _output_is_no_input(self) -> Self:
        if lies_inside(self.output, self.images):
            message = f"expected a place outside images ({self.images!r}), which would list its files as pictures"
            raise conflict("output", message)
        return self
