"""What Ray and its workers say, in one line."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

from labelmill.errors import CredentialsError, NodeError, UnavailableError

__all__ = ["first_line", "named_node", "said_by_worker"]

_RAISED = re.compile(r"^(?!ray\.)[\w.]+(Error|Exception): .+", re.MULTILINE)


def said_by_worker(exc: BaseException) -> str:
    """The line of what was raised in a worker: Ray's text begins with where that was, and its traceback."""
    found = _RAISED.search(str(exc))
    return found[0] if found else first_line(exc)


def first_line(exc: BaseException) -> str:
    return (str(exc).strip() or type(exc).__name__).splitlines()[0]


@contextmanager
def named_node(address: str) -> Iterator[None]:
    """What cannot be reached here is said with this node's address: the line stands on another machine's terminal."""
    try:
        yield
    except (CredentialsError, NodeError, UnavailableError) as exc:
        raise NodeError(
            f"node {address}: {exc}. Every node needs credentials that the stores take, and the folders that the spec "
            "names; then run the same spec again."
        ) from exc
