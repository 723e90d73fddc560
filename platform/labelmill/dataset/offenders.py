"""How errors name what does not fit: the first few, and how many there are."""

from collections.abc import Sequence

__all__ = ["quoted", "shown"]

_NUM_SHOWN = 5


def shown(offenders: Sequence[str]) -> str:
    listed = ", ".join(offenders[:_NUM_SHOWN])
    return listed if len(offenders) <= _NUM_SHOWN else f"{listed} and {len(offenders) - _NUM_SHOWN} more"


def quoted(names: Sequence[str]) -> str:
    return shown([repr(name) for name in names])
