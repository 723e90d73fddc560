"""What pydantic refused, in the words of the person who wrote the file."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic_core import ErrorDetails

from labelmill.spec.nearest import listing, nearest
from labelmill.spec.reading.nodes import Location
from labelmill.spec.reading.source import Source
from labelmill.spec.reading.substitute import Substitution

__all__ = ["describe"]

EXPECTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "string_unicode": "text in UTF-8",
    "string_too_short": "text that is not empty",
    "tuple_type": "a list",
    "list_type": "a list",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "model_type": "a mapping of fields",
    "model_attributes_type": "a mapping of fields",
    "too_short": "{min_length} values",
    "too_long": "{max_length} values",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
    "expected": "{what}",
}


def describe(errors: list[ErrorDetails], source: Source, filled: Substitution, model: type[BaseModel]) -> list[str]:
    """One line for each mistake: where it was written, the field, what was expected, what came, and a near miss."""
    found: dict[Location, str] = {}
    for error in errors:
        location, message = _one(error, filled, model)
        found.setdefault(location, message)
    found |= filled.problems
    suggested = {message.rpartition("did you mean ")[2].rstrip("?") for message in found.values()}
    order = list(source.origins)
    lines = []
    for location, message in sorted(found.items(), key=lambda item: _rank(item[0], order)):
        field = ".".join(str(part) or "''" for part in location)
        # A misspelt required field is one mistake, not an unknown field and a missing one.
        if message.startswith("required, and missing") and str(location[-1]) in suggested:
            continue
        origin = source.origin(location)
        named = f"{origin}: {field}" if field and not origin.endswith(f" {field}") else origin  # `--set a.b` names it
        lines.append(f"{named}: {message}")
    return lines


def _rank(location: Location, order: list[Location]) -> int:
    while location and location not in order:
        location = location[:-1]
    return order.index(location) if location in order else 0


def _one(error: ErrorDetails, filled: Substitution, model: type[BaseModel]) -> tuple[Location, str]:
    location = _written(error["loc"], filled.data)
    context = error.get("ctx", {})
    kind = error["type"]
    if kind == "conflict":
        return (*location, *filter(None, context["field"].split("."))), context["message"]
    if kind == "missing":
        return location, f"required, and missing{_purpose(model, location)}"
    if kind == "extra_forbidden":
        return location, _unknown_field(str(location[-1]), model, location[:-1])
    if kind == "literal_error":
        choices = [str(choice) for choice in _choices(model, location)]
        near = nearest(error["input"], choices) if isinstance(error["input"], str) else None
        expected = listing(choices) if choices else context["expected"]
        return location, f"expected {expected}, {_came(error, location, filled)}{_did_you_mean(near)}"
    what = EXPECTED[kind].format_map(_plain_numbers(context)) if kind in EXPECTED else error["msg"]
    secret = bool(context.get("secret"))
    suggestion = context.get("suggestion")
    if kind == "expected" and isinstance(error["input"], dict | list | tuple):
        came = f"got {list(error['input'])}" if _is_plain_list(error["input"]) else ""
    else:
        came = _came(error, location, filled, secret=secret)
    return location, ", ".join(filter(None, (f"expected {what}", came))) + _did_you_mean(suggestion)


def _written(steps: Location, data: Any) -> Location:
    """Without the tags, such as <range>, that say which of several forms a value has: nobody wrote them."""
    location: Location = ()
    for step in steps:
        if str(step).startswith("<") and not (isinstance(data, dict) and step in data):
            continue
        location += (step,)
        try:
            data = data[step]
        except (LookupError, TypeError):  # what is missing
            data = None
    return location


def _came(error: ErrorDetails, location: Location, filled: Substitution, *, secret: bool = False) -> str:
    value = error["input"]
    if isinstance(value, dict):
        return "got a mapping"
    if isinstance(value, list | tuple):
        return f"got a list of {len(value)}"
    variables = ", ".join(f"${{{name}}}" for name in filled.variables.get(location, ()))
    if secret or "api_keys" in location or filled.holds_secret(location):
        return f"got what {variables} holds (not shown)" if variables else "got something else (not shown)"
    words = {None: "nothing", True: "true", False: "false"}
    shown = words[value] if value is None or isinstance(value, bool) else _shortened(repr(value))
    if error["type"] == "string_type" and value is not None:
        shown += f' (in quotes, "{words.get(value, value)}", it is text)'
    return f"got {shown} (from {variables})" if variables else f"got {shown}"


def _shortened(shown: str) -> str:
    return shown if len(shown) <= 100 else f"{shown[:80]}… ({len(shown):,} characters)"


def _plain_numbers(context: dict[str, Any]) -> dict[str, Any]:
    return {key: f"{value:g}" if isinstance(value, float) else value for key, value in context.items()}


def _is_plain_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and all(isinstance(item, int | float) for item in value)


def _did_you_mean(near: str | None) -> str:
    return f": did you mean {near}?" if near else ""


def _unknown_field(name: str, model: type[BaseModel], location: Location) -> str:
    part = _part(model, location)
    names = list(part.model_fields) if part else []
    near = nearest(name, names)
    if near:
        return f"no such field{_did_you_mean(near)}"
    return f"no such field: expected {listing(sorted(names))}" if names else "no such field"


def _purpose(model: type[BaseModel], location: Location) -> str:
    field, part = _field(model, location), _part(model, location)
    purpose = field.description if field and field.description else part.__doc__ if part else None
    return f": {purpose}" if purpose else ""


def _choices(model: type[BaseModel], location: Location) -> tuple[Any, ...]:
    field = _field(model, location)
    return tuple(_literals(field.annotation)) if field else ()


def _literals(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Literal:
        yield from get_args(annotation)
    else:
        for argument in get_args(annotation):
            yield from _literals(argument)


def _field(model: type[BaseModel], location: Location) -> Any:
    """The field that `location` is, or is in a list of."""
    while location and isinstance(location[-1], int):
        location = location[:-1]
    part = _part(model, location[:-1]) if location else None
    return part.model_fields.get(str(location[-1])) if part else None


def _part(model: type[BaseModel], location: Location) -> type[BaseModel] | None:
    """The class of the mapping at `location`."""
    named = False  # whether the step is a name that the user chose, as in `thresholds.labels.cat`
    for step in location:
        if named or isinstance(step, int):  # of a list all parts are alike
            named = False
            continue
        field = model.model_fields.get(str(step))
        inner = next(_models(field.annotation), None) if field else None
        if field is None or inner is None:
            return None
        model, named = inner, get_origin(field.annotation) is Mapping
    return model


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models(argument)
