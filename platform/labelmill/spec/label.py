"""The spec of a label job."""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from labelmill.address import lies_inside, table_fault
from labelmill.spec.nearest import listing
from labelmill.spec.parts import (
    Engine,
    MaxPixels,
    MaxRequests,
    ModelReference,
    Name,
    Number,
    Part,
    Precision,
    RegistryUri,
    Uri,
    Whole,
    conflict,
    expected,
)
from labelmill.spec.pattern import pattern_regex
from labelmill.spec.schedule import Notify, Schedule

__all__ = ["Images", "LabelSpec", "Prices"]

MANIFESTS = (".parquet", ".csv", ".jsonl", ".csv.gz", ".jsonl.gz")
SOURCES = ("prefix", "manifest", "inventory", "shards")


def _manifest(value: str) -> str:
    if not value.lower().endswith(MANIFESTS):
        raise expected(f"the address of a {listing(MANIFESTS)} file")
    return value


def _inventory(value: str) -> str:
    if not (value.startswith("s3://") and value.endswith(".json")):
        raise expected("the address of an S3 Inventory, s3://<bucket>/<path>/manifest.json")
    return value


def _table(value: str) -> str:
    if fault := table_fault(value):
        raise expected(f"an address without {fault!r}, which other readers of Delta tables take for something else")
    return value


def _glob(value: str) -> str:
    try:
        re.compile(pattern_regex(value))
    except re.error:
        value = ""
    if not value.strip("/"):
        raise expected("a pattern, such as *.jpg, thumbs or 2026/**/*.png")
    return value


Glob = Annotated[str, AfterValidator(_glob)]


class Images(Part):
    """Where the pictures are listed, by exactly one of prefix, manifest, inventory and shards; and which of them count.

    A pattern without a slash is met by a file or folder of that name at any depth, one with a slash starts at the top;
    a folder that is met brings all below it. `*` and `?` stay within a name, `**` crosses folders, `[a-z]` and
    `{jpg,png}` choose. A shard counts as a folder of its members. Upper and lower case differ, as in a store.
    """

    prefix: Uri | None = Field(default=None, description="A folder or bucket prefix: every object below is a picture.")
    manifest: Annotated[Uri, AfterValidator(_manifest)] | None = Field(
        default=None,
        description="A parquet, csv or jsonl file with the column uri and perhaps size_bytes and etag; a relative uri "
        "starts where the file lies. A row without an etag costs one request, which asks for it.",
    )
    inventory: Annotated[Uri, AfterValidator(_inventory)] | None = Field(
        default=None, description="The manifest.json of an S3 Inventory with CSV or Parquet files."
    )
    shards: Uri | None = Field(
        default=None,
        description="A tar (WebDataset) or parquet file with pictures in it, or a prefix with such files below.",
    )
    column: str | None = Field(
        default=None,
        min_length=1,
        description="Of Parquet shards: the column with the pictures' bytes, where there is more than one.",
    )
    include: tuple[Glob, ...] = Field(default=(), description="Only what one of these patterns meets; none: all.")
    exclude: tuple[Glob, ...] = Field(
        default=(), description="Not what one of these patterns meets; nobody looks into a folder that one meets."
    )
    sample: Number | None = Field(
        default=None, gt=0, le=1, description="A share of the pictures, drawn by their uris: the same each night."
    )
    limit: Whole | None = Field(default=None, ge=1, description="The first so many of the listing, for a trial run.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        given = [name for name in SOURCES if getattr(self, name) is not None]
        if len(given) != 1:
            message = f"expected exactly one of {listing(SOURCES)}, got {' and '.join(given) or 'none'}"
            raise conflict(given[1] if given else "", message)
        if self.column is not None and self.shards is None:
            raise conflict("column", f"only shards have columns of pictures, and this is a {given[0]}")
        return self


def _prefix_or_mapping(value: Any) -> str:
    return "<mapping>" if isinstance(value, dict | Images) else "<prefix>"


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
    images: Annotated[
        Annotated[Uri, Tag("<prefix>")] | Annotated[Images, Tag("<mapping>")], Discriminator(_prefix_or_mapping)
    ] = Field(description="The prefix to list; every object under it is a picture. Or a mapping.")
    output: Annotated[Uri, AfterValidator(_table)] = Field(
        description="The label table, a Delta Lake table; made when it is not there."
    )
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
        description="Share of the pictures tried that may fail, from 200 on, or 20 if all fail; "
        "above it the run stops and keeps what it committed.",
    )
    max_vanished_rate: Number = Field(
        default=0.1,
        ge=0,
        le=1,
        description="Share of the pictures that the table holds below the prefix that may be listed no more, from 200 "
        "on; above it the run stops before it writes anything, since a folder may not be mounted. 1: all.",
    )
    engine: Engine = "auto"
    precision: Precision = "auto"
    batch_size: Annotated[Whole, Field(ge=1, le=4096)] | None = Field(
        default=None,
        description="Pictures that a worker fetches, decodes and labels at once; left out, 32, and 128 with GPUs. How "
        "many a network on a GPU sees at once is measured there.",
    )
    max_pixels: MaxPixels = 200_000_000
    timeout_s: Number = Field(
        default=60,
        gt=0,
        description="Seconds that decoding and labelling one picture may take; longer, and it is timed_out.",
    )
    max_requests_per_s: MaxRequests = None
    prices: Prices | None = Field(
        default=None, description="With them, plan and receipt say money; without, requests and core-hours."
    )
    receipt_pictures: Whole = Field(
        default=6, ge=0, le=24, description="Small sample pictures that the receipt shows of each label; 0 for none."
    )
    schedule: Schedule | None = Field(default=None, description="When it runs by itself, by `labelmill deploy`.")
    notify: Notify | None = Field(default=None, description="Who hears how a run ended.")

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
        listed = self.images if isinstance(self.images, str) else self.images.prefix or self.images.shards
        if listed is not None and lies_inside(self.output, listed):
            message = f"expected a place outside images ({listed!r}), which would list its files as pictures"
            raise conflict("output", message)
        return self
