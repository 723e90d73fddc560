"""The text of a spec as data, with the place that every value came from, overrides included."""

import codecs
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labelmill.errors import SpecError
from labelmill.spec.nearest import nearest
from labelmill.spec.reading.nodes import MAX_DEPTH, Builder, Location, compose, line_of

__all__ = ["Source", "apply_override", "read_source"]

MAX_BYTES = 2**20


@dataclass(slots=True)
class Source:
    """A spec before substitution. `origins` says where each location was written: `job.yaml:12`, or `--set a.b`."""

    path: str
    data: dict[str, Any]
    origins: dict[Location, str] = field(default_factory=dict)

    def origin(self, location: Location) -> str:
        """Where `location`, or the nearest part around it, was written."""
        for length in range(len(location), -1, -1):
            if location[:length] in self.origins:
                return self.origins[location[:length]]
        return self.path


def read_source(path: str) -> Source:
    """Read a YAML or JSON file. SpecError: not there, not text, not YAML, or not a mapping."""
    if not path:
        raise SpecError("expected the name of a YAML or JSON file, got an empty one")
    text = _read_text(Path(path))
    if path.endswith(".json"):
        text = _plain_json(path, text)
    node = compose(text, path)
    if node is None:
        raise SpecError(f"{path}: the file is empty: expected a spec, starting with `kind: label`, `train` or `serve`")
    builder = Builder(path, is_json=path.endswith(".json"))
    data = builder.build(node, ())
    if not isinstance(data, dict):
        came = "a list" if isinstance(data, list) else "nothing" if data is None else repr(data)
        raise SpecError(f"{path}:{line_of(node)}: expected a mapping of fields, such as `kind: label`, got {came}")
    return Source(path, data, builder.origins)


def parse_value(text: str, origin: str) -> tuple[Any, list[Location]]:
    """The value of an override, read as YAML, and the locations within it."""
    node = compose(text, origin)
    builder = Builder(origin, is_json=False)
    data = None if node is None else builder.build(node, ())
    return data, list(builder.origins)


def apply_override(source: Source, override: str) -> None:
    """Put `path.to.field=value` into the data. SpecError names the override."""
    dotted, equals, text = override.partition("=")
    dotted = dotted.strip()
    if not equals or not all(dotted.split(".")) or dotted.count(".") > MAX_DEPTH:
        shown = f" {dotted}" if dotted else ""  # not the value, which may be a secret
        raise SpecError(f"--set{shown}: expected path.to.field=value, such as optimize.epochs=3")
    origin = f"--set {dotted}"
    value, inner = parse_value(text, origin)
    holder: Any = source.data
    location: Location = ()
    *parents, last = dotted.split(".")
    for part in parents:
        location += (_step(holder, part, origin),)
        if isinstance(holder, dict) and holder.get(part) is None:
            holder[part] = {}
            source.origins[location] = origin
        holder = holder[location[-1]]
    location += (_step(holder, last, origin),)
    holder[location[-1]] = value
    for known in [known for known in source.origins if known[: len(location)] == location]:
        del source.origins[known]
    source.origins |= {location + below: origin for below in [(), *inner]}


def _step(holder: Any, part: str, origin: str) -> str | int:
    if isinstance(holder, dict):
        return part
    if isinstance(holder, list):
        places = [str(place) for place in range(len(holder))]
        if part in places:
            return places.index(part)
        expected = f"a position from 0 to {len(holder) - 1} of the list" if holder else "the whole list, which is empty"
        raise SpecError(f"{origin}: expected {expected}, got {part!r}")
    raise SpecError(f"{origin}: {part!r} is not there: what stands before it is a single value, not a mapping")


def _read_text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise SpecError(f"{path}: no such file{_did_you_mean(path)}") from None
    except IsADirectoryError:
        raise SpecError(f"{path}: is a folder: expected a YAML or JSON file") from None
    except (OSError, ValueError) as exc:
        raise SpecError(f"{path}: cannot be read: {getattr(exc, 'strerror', None) or exc}") from exc
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise SpecError(f"{path}: is in UTF-16: save it as UTF-8")
    if b"\x00" in data:
        raise SpecError(f"{path}: is not a text file: expected YAML or JSON")
    if len(data) > MAX_BYTES:
        raise SpecError(f"{path}: is larger than 1 MiB: expected a spec, a short YAML or JSON file")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise SpecError(f"{path}: is not a text file in UTF-8: expected YAML or JSON") from None


def _did_you_mean(path: Path) -> str:
    try:
        near = nearest(path.name, [entry.name for entry in path.parent.iterdir()])
    except OSError:
        return ""
    return f": did you mean {path.with_name(near)}?" if near else ""


def _plain_json(path: str, text: str) -> str:
    """The same JSON without tabs, which YAML does not allow between values. Within strings JSON has none."""
    if not text.strip():
        return text
    try:
        json.loads(text)
    except json.JSONDecodeError as exc:
        raise SpecError(f"{path}:{exc.lineno}: not valid JSON: {exc.msg}, at column {exc.colno}") from None
    except (RecursionError, ValueError):
        raise SpecError(f"{path}: not a spec: nested too deeply, or a number without end") from None
    return text.replace("\t", " ")
