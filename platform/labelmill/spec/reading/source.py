"""The text of a spec as data, with the place that every value came from.

YAML is read by the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema), of which JSON is a part:
`no`, `on` and `2024-01-01` are text, `1e-3` is a number. Line numbers count from 1.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import yaml

from labelmill.errors import SpecError
from labelmill.spec.nearest import nearest

__all__ = ["Location", "Source", "apply_override", "parse_value", "read_source"]

Location = tuple[str | int, ...]
"""Where a value stands in the data: ("optimize", "epochs"), ("api_keys", 0)."""

MAX_BYTES = 2**20
MAX_VALUES = 10_000
MAX_DEPTH = 50
NUMBERS = {
    "int": re.compile(r"[-+]?[0-9][0-9_]*"),
    "float": re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"),
}
WORDS: dict[str, bool | None] = dict.fromkeys(("", "~", "null", "Null", "NULL"))
WORDS |= {word: word[0] in "tT" for word in ("true", "True", "TRUE", "false", "False", "FALSE")}


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
    text = _read_text(Path(path))
    if path.endswith(".json"):
        text = _plain_json(path, text)
    node = _compose(text, path)
    if node is None:
        raise SpecError(f"{path}: the file is empty: expected a spec, starting with `kind: label`, `train` or `serve`")
    builder = _Builder(path, is_json=path.endswith(".json"))
    data = builder.build(node, ())
    if not isinstance(data, dict):
        came = "a list" if isinstance(data, list) else repr(data)
        raise SpecError(f"{path}:{_line(node)}: expected a mapping of fields, such as `kind: label`, got {came}")
    return Source(path, data, builder.origins)


def parse_value(text: str, origin: str) -> tuple[Any, list[Location]]:
    """The value of an override, read as YAML, and the locations within it."""
    node = _compose(text, origin)
    builder = _Builder(origin, is_json=False)
    data = None if node is None else builder.build(node, ())
    return data, list(builder.origins)


def apply_override(source: Source, override: str) -> None:
    """Put `path.to.field=value` into the data. SpecError names the override."""
    dotted, equals, text = override.partition("=")
    dotted = dotted.strip()
    if not equals or not all(dotted.split(".")):
        raise SpecError(f"--set {dotted}: expected path.to.field=value, such as optimize.epochs=3")
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
        if part.isdecimal() and int(part) < len(holder):
            return int(part)
        raise SpecError(f"{origin}: expected a position from 0 to {len(holder) - 1} of the list, got {part!r}")
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


def _compose(text: str, name: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as exc:
        _refuse_syntax(exc, text, name)
    except yaml.reader.ReaderError as exc:
        line = text.count("\n", 0, exc.position) + 1
        raise SpecError(f"{name}:{line}: not valid YAML: the character {chr(exc.character)!r} is not allowed") from None
    except RecursionError:
        raise SpecError(f"{name}: nested too deeply for a spec") from None


def _refuse_syntax(exc: yaml.MarkedYAMLError, text: str, name: str) -> NoReturn:
    # The text around the error is not repeated: it may hold a secret.
    mark = exc.problem_mark or exc.context_mark
    line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
    what = ", ".join(part for part in (exc.context, exc.problem) if part)
    lines = text.splitlines()
    hint = ""
    if line <= len(lines) and re.search(r"[\[{,].*\$\{", lines[line - 1]):
        hint = '; within [ ] and { } put quotes around ${…}, as in ["${NAME}"]'
    place = name if name.startswith("--set") else f"{name}:{line}"
    raise SpecError(f"{place}: not valid YAML: {what}, at column {column}{hint}") from None


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


class _Builder:
    """Turns YAML nodes into data and notes the line of each key and item."""

    def __init__(self, name: str, *, is_json: bool) -> None:
        self.name = name
        self.is_json = is_json
        self.origins: dict[Location, str] = {}

    def build(self, node: yaml.Node, location: Location) -> Any:
        self.origins.setdefault(location, f"{self.name}:{_line(node)}")
        if len(self.origins) > MAX_VALUES or len(location) > MAX_DEPTH:
            self._refuse(node, "more values, or deeper nesting, than any spec has")
        if node.tag.startswith("!") or node.tag.startswith("tag:yaml.org,2002:python/"):
            self._refuse(node, f"the tag {node.tag!r} is not allowed in a spec")
        if isinstance(node, yaml.MappingNode):
            return {key: self.build(value, (*location, key)) for key, value in self._fields(node, location)}
        if isinstance(node, yaml.SequenceNode):
            return [self.build(value, (*location, index)) for index, value in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        return self._scalar(node)

    def _fields(self, node: yaml.MappingNode, location: Location) -> Iterator[tuple[str, yaml.Node]]:
        lines: dict[str, int] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._refuse(key, "expected the name of a field")
            if key.value in lines:
                self._refuse(key, f"{key.value!r} is written twice, here and on line {lines[key.value]}")
            lines[key.value] = _line(key)
            self.origins[(*location, key.value)] = f"{self.name}:{_line(key)}"
            yield key.value, value

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        text = str(node.value)
        if node.style:  # quoted or a block: text, whatever it looks like
            return self._whole_characters(node, text)
        if text in WORDS:
            return WORDS[text]
        try:
            if NUMBERS["int"].fullmatch(text):
                return int(text.replace("_", ""))
            if NUMBERS["float"].fullmatch(text):
                return float(text.replace(".inf", "inf").replace(".nan", "nan").lower())
        except ValueError:  # thousands of digits
            return text
        return text

    def _whole_characters(self, node: yaml.Node, text: str) -> str:
        """JSON writes a character beyond U+FFFF as two escapes; YAML hands them over as two halves."""
        try:
            return text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            self._refuse(node, "half a character: a \\u escape whose other half is missing")

    def _refuse(self, node: yaml.Node, problem: str) -> NoReturn:
        line = "" if self.name.startswith("--set") else f":{_line(node)}"
        raise SpecError(f"{self.name}{line}: {problem}")
