"""What lies in a registry and is none of its: it counts for nothing, and is named."""

import logging
from collections.abc import Sequence
from functools import cache

__all__ = ["passed_over"]

logger = logging.getLogger(__name__)

_NUM_NAMED = 5


def passed_over(what: str, where: str, keys: Sequence[str]) -> None:
    """Say so of these keys, in one line, once a process."""
    if keys:
        more = f" and {len(keys) - _NUM_NAMED} more" if len(keys) > _NUM_NAMED else ""
        _say(f"passed over in {where}, {what}: {', '.join(sorted(keys)[:_NUM_NAMED])}{more}")


@cache
def _say(line: str) -> None:
    logger.warning("%s", line)
