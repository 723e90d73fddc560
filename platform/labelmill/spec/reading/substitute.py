"""`${NAME}` and `${NAME:-default}` in the strings of a spec.

The default counts when the variable is unset or empty, as in a POSIX shell. `$${` stands for `${` itself.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from labelmill.spec.nearest import nearest
from labelmill.spec.reading.nodes import Location

__all__ = ["Substitution", "substitute"]

REFERENCE = re.compile(r"\$\$\{|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(:-(?P<default>[^}]*))?\}|\$\{")
# What carries a secret: the fields that are made for one, and whatever a variable of such a name went into.
SECRET_FIELDS = frozenset({"api_keys", "url"})
STAND_IN = "https://elsewhere.invalid/"  # would do for a key, and for an address
SECRET_NAME = re.compile(r"KEY|SECRET|TOKEN|PASS|CREDENTIAL|AUTH", re.IGNORECASE)


@dataclass(slots=True)
class Substitution:
    """`data` after substitution, what was wrong, and which variables of the environment went into each string."""

    data: Any = None
    problems: dict[Location, str] = field(default_factory=dict)
    variables: dict[Location, list[str]] = field(default_factory=dict)
    secrets_are_elsewhere: bool = False

    def at(self, location: Location) -> Any:
        """The value at this place."""
        value = self.data
        for step in location:
            value = value[step]
        return value

    def holds_secret(self, location: Location) -> bool:
        """Whether this value may neither be shown nor kept."""
        return any(_is_secret(name, location) for name in self.variables.get(location, ("",)))


def substitute(data: Any, environ: Mapping[str, str], *, secrets_are_elsewhere: bool = False) -> Substitution:
    """Replace the references in every string of `data`. `secrets_are_elsewhere`: a variable that carries a secret need
    not be set here; something that is no secret stands for it."""
    result = Substitution(secrets_are_elsewhere=secrets_are_elsewhere)
    result.data = _walk(data, (), environ, result)
    return result


def _is_secret(variable: str, location: Location) -> bool:
    return bool(SECRET_NAME.search(variable)) or not SECRET_FIELDS.isdisjoint(location)


def _walk(value: Any, location: Location, environ: Mapping[str, str], result: Substitution) -> Any:
    if isinstance(value, dict):
        return {key: _walk(inner, (*location, key), environ, result) for key, inner in value.items()}
    if isinstance(value, list):
        return [_walk(inner, (*location, index), environ, result) for index, inner in enumerate(value)]
    return _fill_in(value, location, environ, result) if isinstance(value, str) else value


def _fill_in(text: str, location: Location, environ: Mapping[str, str], result: Substitution) -> str:
    def replace(found: re.Match[str]) -> str:
        name, default = found["name"], found["default"]
        if found[0] == "$${":
            return "${"
        if name is None:
            result.problems[location] = "expected ${NAME} or ${NAME:-default}; write $${ for the characters ${"
            return ""
        if environ.get(name) or (name in environ and default is None):
            result.variables.setdefault(location, []).append(name)
            return environ[name]
        if default is None and result.secrets_are_elsewhere and _is_secret(name, location):
            result.variables.setdefault(location, []).append(name)
            return STAND_IN
        if default is None:
            near = nearest(name, environ.keys())
            hint = f" (did you mean {near}?)" if near else ""
            result.problems[location] = (
                f"the environment variable {name} is not set{hint}: set it, or write ${{{name}:-default}}"
            )
            return ""
        return str(default)

    return REFERENCE.sub(replace, text)
