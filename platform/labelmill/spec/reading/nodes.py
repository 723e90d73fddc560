"""YAML as nodes, and nodes as data, with the line of each value.

It is read by the core schema of YAML 1.2 (https://yaml.org/spec/1.2.2/#103-core-schema), of which JSON is a part:
`no`, `on` and `2024-01-01` are text, `1e-3` is a number. Beside it a mapping may take over the fields of others by the
merge key of YAML 1.1, `<<: *defaults` (https://yaml.org/type/merge.html). Line numbers count from 1.
"""

import re
from collections.abc import Iterator
from typing import Any, NoReturn

import yaml

from labelmill.errors import SpecError

__all__ = ["MAX_DEPTH", "Builder", "Location", "compose", "line_of"]

Location = tuple[str | int, ...]
"""Where a value stands in the data: ("optimize", "epochs"), ("api_keys", 0)."""

MAX_VALUES = 10_000
MAX_DEPTH = 50
MAX_MERGES = 400
NUMBERS = {
    "int": re.compile(r"[-+]?[0-9][0-9_]*"),
    "float": re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"),
}
WORDS: dict[str, bool | None] = dict.fromkeys(("", "~", "null", "Null", "NULL"))
WORDS |= {word: word[0] in "tT" for word in ("true", "True", "TRUE", "false", "False", "FALSE")}


def compose(text: str, name: str) -> yaml.Node | None:
    try:
        return yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as exc:
        _refuse_syntax(exc, text, name)
    except yaml.reader.ReaderError as exc:
        what = f"the character {chr(exc.character)!r} is not allowed"
        if 0xDC80 <= exc.character <= 0xDCFF:  # how Python holds a byte of an argument that is no character
            what = "expected text in UTF-8"
        raise SpecError(f"{_place(name, text.count(chr(10), 0, exc.position) + 1)}: not valid YAML: {what}") from None
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
    raise SpecError(f"{_place(name, line)}: not valid YAML: {what}, at column {column}{hint}") from None


def _place(name: str, line: int) -> str:
    """An override is one line, and its own place."""
    return name if name.startswith("--set") else f"{name}:{line}"


def line_of(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


class Builder:
    """Turns YAML nodes into data and notes the line of each key and item."""

    def __init__(self, name: str, *, is_json: bool) -> None:
        self.name = name
        self.is_json = is_json
        self.origins: dict[Location, str] = {}
        self._num_merges = 0

    def build(self, node: yaml.Node, location: Location) -> Any:
        self.origins.setdefault(location, f"{self.name}:{line_of(node)}")
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
        for key, value, is_own in self._pairs(node):
            name = self._whole_characters(key, key.value)
            if name in lines:
                if is_own:
                    self._refuse(key, f"{name!r} is written twice, here and on line {lines[name]}")
                continue
            lines[name] = line_of(key)
            self.origins[(*location, name)] = f"{self.name}:{line_of(key)}"
            yield name, value

    def _pairs(self, node: yaml.MappingNode) -> Iterator[tuple[yaml.ScalarNode, yaml.Node, bool]]:
        """The keys and values of a mapping: its own, then those that it takes over, the nearest first."""
        merges = []
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._refuse(key, "expected the name of a field")
            if key.value == "<<" and not key.style:
                merges.append((key, value))
            else:
                yield key, value, True
        for key, _ in merges[1:]:
            self._refuse(key, "'<<' is written twice: take over several mappings by a list, <<: [*one, *other]")
        for _, value in merges:
            for other in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                yield from ((*pair[:2], False) for pair in self._taken_over(other))

    def _taken_over(self, node: yaml.Node) -> Iterator[tuple[yaml.ScalarNode, yaml.Node, bool]]:
        if not isinstance(node, yaml.MappingNode):
            self._refuse(node, "expected a mapping to take fields from, such as <<: *defaults")
        self._num_merges += 1
        if self._num_merges > MAX_MERGES:
            self._refuse(node, "more values, or deeper nesting, than any spec has")
        return self._pairs(node)

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
        raise SpecError(f"{_place(self.name, line_of(node))}: {problem}")
