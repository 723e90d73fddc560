"""A spec that means the same on another machine."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, get_args

from labelmill.errors import SpecError
from labelmill.spec.parts import Part, Place
from labelmill.spec.reading.load import LoadedSpec
from labelmill.spec.reading.nodes import Location
from labelmill.spec.reading.record import MASK
from labelmill.spec.reading.substitute import REFERENCE

__all__ = ["Portable", "places", "portable"]


@dataclass(frozen=True, slots=True)
class Portable:
    """`data` is what to write into a file there. `secrets` are the variables that it leaves to that machine."""

    data: dict[str, Any] = field(repr=False)
    secrets: tuple[str, ...] = ()


def portable(loaded: LoadedSpec, move: Callable[[str, str], str]) -> Portable:
    """The spec with its variables filled in, but for those that carry a secret, and each address as
    `move("path.to.field", address)` has it. SpecError: a secret stands in the spec itself.
    """
    moved = {location: move(_dotted(location), value) for location, value in places(loaded.spec)}
    secrets: list[str] = []
    data = _data(loaded.source, loaded.written, (), moved, secrets)
    return Portable(data, tuple(dict.fromkeys(secrets)))


def places(part: Part, location: Location = ()) -> Iterator[tuple[Location, str]]:
    """Every address that was written into a spec, and where."""
    for name, info in type(part).model_fields.items():
        value = getattr(part, name) if name in part.model_fields_set else None
        if isinstance(value, str):
            place = next(_marks([info.annotation, *info.metadata]), None)
            if place and not re.fullmatch(place.otherwise, value):
                yield (*location, name), value
        elif isinstance(value, Part):
            yield from places(value, (*location, name))
        elif isinstance(value, list | tuple):
            for number, item in enumerate(value):
                if isinstance(item, Part):
                    yield from places(item, (*location, name, number))


def _marks(found: list[Any]) -> Iterator[Place]:
    for item in found:
        if isinstance(item, Place):
            yield item
        else:
            yield from _marks(list(get_args(item)))


def _data(source: Any, written: Any, location: Location, moved: dict[Location, str], secrets: list[str]) -> Any:
    if isinstance(source, dict):
        return {key: _data(source[key], written[key], (*location, key), moved, secrets) for key in source}
    if isinstance(source, list):
        return [
            _data(item, before, (*location, number), moved, secrets)
            for number, (item, before) in enumerate(zip(source, written, strict=True))
        ]
    if not isinstance(source, str):
        return source
    if source == MASK:
        raise SpecError(
            f"{_dotted(location)}: a secret stands in the spec, which would travel with it: write ${{NAME}}, and set "
            "that variable where the job runs"
        )
    if "${" in source and source == written:  # a secret keeps its variable
        secrets += [found["name"] for found in REFERENCE.finditer(source) if found["name"]]
        return source
    return moved.get(location, source).replace("${", "$${")


def _dotted(location: Location) -> str:
    return ".".join(map(str, location))
