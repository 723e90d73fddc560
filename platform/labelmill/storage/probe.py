"""Whether a bucket holds the promise of `write_if_absent`: not every server that speaks a protocol does."""

from functools import cache
from uuid import uuid4

from labelmill.errors import ForbiddenError, NotFoundError, StorageError, UnavailableError
from labelmill.storage.credentials import Environment
from labelmill.storage.store import SCRATCH, Store

__all__ = ["is_honoured"]


@cache
def is_honoured(store: Store, environment: Environment) -> bool:
    """Tried on a throw-away key, once a store and its environment."""
    trial = SCRATCH + uuid4().hex
    try:
        first = store.write_if_absent(trial, b"first")
    except (ForbiddenError, NotFoundError, UnavailableError):
        raise
    except StorageError:  # it knows that it cannot
        return False
    try:
        return first and not store.write_if_absent(trial, b"second")
    finally:
        store.delete(trial)
