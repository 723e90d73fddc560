"""What Ray says, in one line."""

import re

__all__ = ["first_line", "said_by_worker"]

_RAISED = re.compile(r"^(?!ray\.)[\w.]+(Error|Exception): .+", re.MULTILINE)


def said_by_worker(exc: BaseException) -> str:
    """The line of what was raised in a worker: Ray's text begins with where that was, and its traceback."""
    found = _RAISED.search(str(exc))
    return found[0] if found else first_line(exc)


def first_line(exc: BaseException) -> str:
    return (str(exc).strip() or type(exc).__name__).splitlines()[0]
