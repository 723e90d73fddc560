"""The JSON Schema of a spec, for editors."""

from typing import Annotated, Any

from pydantic import Field, TypeAdapter

from labelmill.spec.reading.load import Spec

__all__ = ["json_schema"]

REFERENCE = {"type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}"}


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a spec before substitution, so a number may also be written as `${NAME}`."""
    kinds = Annotated[Spec, Field(discriminator="kind")]
    schema = TypeAdapter(kinds).json_schema()
    for part in schema["$defs"].values():
        for field in part.get("properties", {}).values():
            _allow_reference(field)
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "labelmill job spec"}
    return head | schema


def _allow_reference(field: dict[str, Any]) -> None:
    field.pop("title", None)
    if field.get("type") in ("integer", "number") or "enum" in field or "pattern" in field:
        outside = ("description", "default")
        inner = {key: field.pop(key) for key in list(field) if key not in outside}
        field["anyOf"] = [inner, REFERENCE]
    elif "anyOf" in field:
        field["anyOf"].append(REFERENCE)
    elif "oneOf" in field:
        field["oneOf"].append(REFERENCE)
