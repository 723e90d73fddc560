"""The spec of an evaluation."""

from typing import Literal

from pydantic import Field

from labelmill.spec.parts import (
    Engine,
    Fraction,
    MaxPixels,
    MaxRequests,
    ModelReference,
    Name,
    Part,
    Precision,
    RegistryUri,
    RobustnessPictures,
    Uri,
)
from labelmill.spec.schedule import Notify, Schedule
from labelmill.spec.train.data import LabelsAddress

__all__ = ["EvaluateData", "EvaluateSpec"]


class EvaluateData(Part):
    """Labelled pictures to measure a model on."""

    images: Uri = Field(description="Root of the pictures; relative uris in the labels file start here.")
    labels: LabelsAddress = Field(
        description="A csv, jsonl or parquet file with the columns uri, labels and perhaps slice (measured apart); "
        "or `folders`: the parent folder of a picture is its label."
    )


class EvaluateSpec(Part):
    """Measure a published model on labelled pictures, and write a report."""

    kind: Literal["evaluate"] = Field(description="This file describes an evaluation.")
    name: Name = Field(description="What this evaluation is called in its report.")
    registry: RegistryUri
    model: ModelReference = Field(description="<name>@<version> or <name>@<alias>.")
    data: EvaluateData
    output: Uri = Field(description="Folder or prefix for report.html and evaluation.json; older ones are replaced.")
    robustness_pictures: RobustnessPictures = 500
    max_unreadable_rate: Fraction = Field(
        default=0.05, description="Share of pictures that may be missing or damaged; above it the evaluation fails."
    )
    engine: Engine = "auto"
    precision: Precision = "auto"
    max_pixels: MaxPixels = 200_000_000
    max_requests_per_s: MaxRequests = None
    schedule: Schedule | None = Field(default=None, description="When it runs by itself, by `labelmill deploy`.")
    notify: Notify | None = Field(default=None, description="Who hears how a run ended.")
