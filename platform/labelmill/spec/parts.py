"""What the kinds of spec share: names, addresses, references, numbers, and the two ways in which a value is refused."""

import re
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError, PydanticKnownError

from labelmill.address import BUCKETS, split_uri
from labelmill.errors import StorageError
from labelmill.spec.nearest import nearest

__all__ = [
    "Engine",
    "Fraction",
    "MaxPixels",
    "MaxRequests",
    "ModelReference",
    "Name",
    "Number",
    "Part",
    "Place",
    "Precision",
    "RegistryUri",
    "RobustnessPictures",
    "Seed",
    "Uri",
    "Whole",
    "conflict",
    "expected",
]

NAME_PATTERN = r"[a-z0-9][a-z0-9_.-]*"
NAME_RULE = "a name of lower-case letters, digits, '_', '.' and '-' that starts with a letter or digit"
MAX_NAME_LENGTH = 128
SCHEMES = ("file", *BUCKETS)
URI_RULE = "a folder, file://, s3://, gs:// or az://"
# What other tools call a bucket, and what it is called here. An address of Azure has no account in it: that is
# AZURE_STORAGE_ACCOUNT_NAME, as for every tool that takes az://<container>/<prefix>.
_ELSEWHERE = (
    (r"(?:abfss?|wasbs?)://(?P<bucket>[a-z0-9$-]+)@[^/@?]+(?:/(?P<rest>[^@?]*))?", "az"),
    (r"https?://[a-z0-9]+\.(?:blob|dfs)\.core\.windows\.net/(?P<bucket>[^@?/]+)(?:/(?P<rest>[^@?]*))?", "az"),
    (r"https?://storage\.(?:googleapis|cloud\.google)\.com/(?P<bucket>[^@?/]+)(?:/(?P<rest>[^@?]*))?", "gs"),
    (r"(?:abfss?|adl|azure|wasbs?)://(?P<bucket>[^@?/]+)(?:/(?P<rest>[^@?]*))?", "az"),
    (r"(?:gcs|gcp)://(?P<bucket>[^@?/]+)(?:/(?P<rest>[^@?]*))?", "gs"),
    (r"s3[an]://(?P<bucket>[^@?/]+)(?:/(?P<rest>[^@?]*))?", "s3"),
)


class Part(BaseModel):
    """A piece of a spec. Immutable; a field that it does not know is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, hide_input_in_errors=True)


@dataclass(frozen=True)
class Place:
    """Marks a field whose value is the address of a folder or a file, unless it matches `otherwise`."""

    otherwise: str = "(?!)"


def expected(what: str, *, suggestion: str | None = None, secret: bool = False) -> PydanticCustomError:
    """One value is not what it should be: `what` completes "expected …". A `secret` value is never shown."""
    context = {"what": what, "suggestion": suggestion, "secret": secret}
    return PydanticCustomError("expected", "expected {what}", context)


def conflict(field: str, message: str) -> PydanticCustomError:
    """Two values do not go together: `message` stands beside `field`, a field of the part that raises."""
    return PydanticCustomError("conflict", "{message}", {"field": field, "message": message})


def _name(value: str) -> str:
    if len(value) > MAX_NAME_LENGTH:
        raise expected(f"a name of at most {MAX_NAME_LENGTH} characters")
    if not re.fullmatch(NAME_PATTERN, value):
        cleaned = re.sub(r"[^a-z0-9_.-]+", "-", value.strip().lower()).strip("_.-")
        raise expected(NAME_RULE, suggestion=cleaned or None)
    return value


def _uri(value: str) -> str:
    if not value.strip():
        raise expected(URI_RULE)
    if "\x00" in value or "\n" in value:
        raise expected(f"{URI_RULE}, on one line")
    if any("\ud800" <= char <= "\udfff" for char in value):  # how Python holds what is no character
        raise expected(f"{URI_RULE}, in UTF-8")
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):(/{0,2})", value)
    if not found:
        return value
    scheme, slashes = found.groups()
    rest = value[found.end() :].lstrip("/")
    if scheme not in SCHEMES or slashes != "//":
        if slashes != "//" and scheme.lower() not in SCHEMES:
            return value  # a folder with a colon in its name
        if meant := _from_elsewhere(value):
            raise expected(URI_RULE, suggestion=meant)
        near = nearest(scheme, SCHEMES)
        # A uri of another kind may carry credentials or a signature: it is described, not repeated.
        shown = "@" not in value and "?" not in value
        raise expected(URI_RULE, suggestion=f"{near}://{rest}" if near and shown else None, secret=not shown)
    bucket = value[found.end() :].split("/", 1)[0]
    if "@" in bucket:
        raise expected(
            f"{scheme}://<bucket>/<prefix> without credentials: those come from the environment", secret=True
        )
    if (scheme == "file") == bool(bucket):
        raise expected("file:///<folder>" if scheme == "file" else f"{scheme}://<bucket>/<prefix>")
    return _readable(value)


def _from_elsewhere(value: str) -> str | None:
    """How an address that another tool takes is written here."""
    for pattern, scheme in _ELSEWHERE:
        if found := re.fullmatch(pattern, value, re.IGNORECASE):
            return "/".join(filter(None, (f"{scheme}://{found['bucket']}", found["rest"])))
    return None


def _readable(value: str) -> str:
    try:
        split_uri(value)
    except StorageError:
        raise expected(URI_RULE) from None
    return value


def _model_reference(value: str) -> str:
    if not re.fullmatch(f"{NAME_PATTERN}@{NAME_PATTERN}", value):
        what = "<name>@<version> or <name>@<alias>, such as digits@3 or digits@current"
        raise expected(what, suggestion=f"{value}@current" if re.fullmatch(NAME_PATTERN, value) else None)
    return value


def _not_a_boolean(kind: Literal["int_type", "float_type"]) -> BeforeValidator:
    def check(value: Any) -> Any:
        if isinstance(value, bool):  # pydantic would take true for 1
            raise PydanticKnownError(kind)
        return value

    return BeforeValidator(check)


Whole = Annotated[int, _not_a_boolean("int_type")]
Number = Annotated[float, _not_a_boolean("float_type")]
Fraction = Annotated[Number, Field(ge=0, le=1)]
Seed = Annotated[Whole, Field(ge=0, le=2**32 - 1)]
Name = Annotated[str, AfterValidator(_name), Field(json_schema_extra={"pattern": f"^{NAME_PATTERN}$"})]
Uri = Annotated[str, AfterValidator(_uri), Place()]
RegistryUri = Annotated[
    Uri,
    Field(
        description=f"Where models are published: {URI_RULE}. A relative folder starts at the working directory. The "
        "account of az://<container>/<prefix> is what AZURE_STORAGE_ACCOUNT_NAME says."
    ),
]
ModelReference = Annotated[str, AfterValidator(_model_reference)]
RobustnessPictures = Annotated[
    Whole,
    Field(
        ge=0,
        description="How many of the measured pictures are measured again blurred, noisy, compressed and too bright, "
        "at five strengths each; 0 leaves it out.",
    ),
]
MaxRequests = Annotated[
    Annotated[Number, Field(ge=5)] | None,
    Field(
        description="Requests a second to object stores that all processes of the run together may send, for a store "
        "that others live from; left out, as many as the store answers."
    ),
]
MaxPixels = Annotated[Whole, Field(ge=1, description="Pictures with more pixels than this are not decoded: too_large.")]
Engine = Annotated[
    Literal["auto", "openvino", "torch"],
    Field(description="What runs the network; auto takes torch where there is a GPU and OpenVINO elsewhere."),
]
Precision = Annotated[
    Literal["auto", "float32", "bfloat16"],
    Field(
        description="What the network computes in. auto: bfloat16 on GPUs and CPUs that are at least 1.3 times as fast "
        "in it and then give the same labels, float32 elsewhere. bfloat16: wherever a processor has it, unless answers "
        "differ by over 2%."
    ),
]
