"""The spec of a label job."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

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
    expected,
    lies_inside,
)

__all__ = ["LabelSpec", "Prices"]


def _currency(value: str) -> str:
    if not re.fullmatch("[A-Za-z]{1,8}", value):
        raise expected("the letters of a currency, such as USD or EUR")
    return value


Price = Annotated[Number, Field(ge=0)]
Currency = Annotated[str, AfterValidator(_currency), Field(json_schema_extra={"pattern": "^[A-Za-z]{1,8}$"})]


class Prices(Part):
    """What the resources of a run cost, so that plans and receipts can say money. What is left out costs nothing."""

    core_hour: Price = Field(default=0, description="One CPU core for an hour.")
    gpu_hour: Price = Field(default=0, description="One GPU for an hour.")
    get_per_1000: Price = Field(default=0, description="1,000 GET or HEAD requests to the object store.")
    put_per_1000: Price = Field(default=0, description="1,000 PUT requests.")
    list_per_1000: Price = Field(default=0, description="1,000 LIST requests.")
    transfer_gb: Price = Field(default=0, description="10^9 bytes read from the object store.")
    currency: Currency = Field(default="USD", description="What the prices are in; only shown, never converted.")


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
    prices: Prices | None = Field(
        default=None, description="With them, plan and receipt say money; without, requests and core-hours."
    )
    receipt_pictures: Whole = Field(
        default=6, ge=0, le=24, description="Small sample pictures that the receipt shows of each label; 0 for none."
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
