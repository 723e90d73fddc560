"""Where others can follow a training run."""

import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from labelmill.spec.parts import Part, expected

__all__ = ["Tracking"]


def _server(value: str) -> str:
    what = "the address of an MLflow server, such as http://mlflow.example:5000"
    if not re.match(r"https?://[^/]", value):
        raise expected(what)
    if "@" in urlsplit(value).netloc:
        keys = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or from MLFLOW_TRACKING_TOKEN"
        raise expected(f"{what}, without credentials: those come from {keys}", secret=True)
    return value.rstrip("/")


Server = Annotated[str, AfterValidator(_server)]


class Tracking(Part):
    """Where others can follow the run. TensorBoard's files are written in any case, and end up in the bundle."""

    mlflow: Server | None = Field(
        default=None, description="Address of an MLflow server that gets parameters, curves, report and bundle."
    )
    experiment: str | None = Field(
        default=None, min_length=1, description="Its experiment; without it the model's name."
    )
