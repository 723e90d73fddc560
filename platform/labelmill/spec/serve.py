"""The spec of an endpoint."""

import ipaddress
import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, SecretStr, model_validator

from labelmill.spec.parts import (
    Engine,
    MaxPixels,
    ModelReference,
    Name,
    Number,
    Part,
    Precision,
    RegistryUri,
    Whole,
    conflict,
    expected,
)

__all__ = ["Batching", "ServeSpec", "is_loopback"]


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on `host`."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _host(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._:\[\]-]+", value):
        raise expected("an address or host name to listen on, such as 127.0.0.1 or 0.0.0.0")
    return value


def _api_key(value: SecretStr) -> SecretStr:
    # It travels in an HTTP header: RFC 9110 field values, without the blanks that clients trim.
    if not re.fullmatch(r"[\x21-\x7e]+", value.get_secret_value()):
        raise expected("a key of printable ASCII characters without blanks, and not an empty one", secret=True)
    return value


Host = Annotated[str, AfterValidator(_host)]
ApiKey = Annotated[SecretStr, AfterValidator(_api_key)]


class Batching(Part):
    """Requests that arrive together are answered together."""

    max_size: Whole = Field(default=16, ge=1, le=4096, description="Pictures in one batch at most.")
    wait_ms: Number = Field(
        default=5, ge=0, le=10_000, description="Milliseconds that the first picture waits for others."
    )


class ServeSpec(Part):
    """Serve a model over HTTP."""

    kind: Literal["serve"] = Field(description="This file describes an endpoint.")
    name: Name = Field(description="What this endpoint is called in logs and metrics.")
    registry: RegistryUri
    model: ModelReference = Field(
        description="<name>@<version> or <name>@<alias>; an alias is followed without a restart."
    )
    host: Host = Field(default="127.0.0.1", description="Address to listen on; any other than loopback wants api_keys.")
    port: Whole = Field(default=8000, ge=1, le=65535, description="TCP port to listen on.")
    api_keys: tuple[ApiKey, ...] = Field(
        default=(), description='Keys that clients may use, from the environment: ["${LABELMILL_API_KEY}"].'
    )
    replicas: Whole = Field(default=1, ge=1, description="Copies of the model that answer.")
    batch: Batching = Batching()
    engine: Engine = "auto"
    precision: Precision = "auto"
    max_request_bytes: Whole = Field(default=20 * 2**20, ge=1024, description="Larger requests are refused.")
    max_pixels: MaxPixels = 50_000_000

    @model_validator(mode="after")
    def _strangers_need_a_key(self) -> Self:
        if not self.api_keys and not is_loopback(self.host):
            message = (
                f"required because host {self.host!r} can be reached from other machines: "
                'write api_keys: ["${LABELMILL_API_KEY}"], or listen on 127.0.0.1'
            )
            raise conflict("api_keys", message)
        return self
