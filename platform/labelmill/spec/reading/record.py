"""What is kept of a spec, with a bundle or a receipt: the values that were used, and no secret."""

from typing import Any

from labelmill.spec.reading.nodes import Location
from labelmill.spec.reading.substitute import REFERENCE, Substitution

__all__ = ["MASK", "record_of"]

MASK = "**********"


def record_of(written: Any, filled: Substitution, values: Any, location: Location = ()) -> Any:
    """A copy of what was `written`, in which a text with variables is what `values` have at its place: what the spec
    made of it, a number where the field is one. What carries a secret keeps its `${NAME}`, and is masked where it has
    none; a number is no secret, whatever the variable is called.
    """
    if isinstance(written, dict):
        return {key: record_of(inner, filled, _inner(values, key), (*location, key)) for key, inner in written.items()}
    if isinstance(written, list):
        return [
            record_of(inner, filled, _inner(values, index), (*location, index)) for index, inner in enumerate(written)
        ]
    if filled.holds_secret(location) and not isinstance(values, int | float):
        return written if "${" in str(written) else MASK
    if isinstance(written, str) and REFERENCE.search(written):
        return values if isinstance(values, str | int | float) else filled.at(location)
    return written


def _inner(values: Any, step: str | int) -> Any:
    """What lies one step further in, if the spec keeps this part in the form in which it was written."""
    try:
        return values[step]
    except (TypeError, KeyError, IndexError):
        return None
