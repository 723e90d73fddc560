"""Whether it is the pictures or the node: a machine without credentials fails every picture that it is given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from labelmill.errors import BundleError, NodeError, StorageError
from labelmill.model.answers import Answer, Picture

__all__ = ["NodeDoubt"]

_OF_THE_STORE = {"missing", "forbidden", "fetch_failed"}


class NodeDoubt:
    """What one process knows of its node. Once it has read a picture, or what the run keeps beside the table, a picture
    that cannot be read is the picture's own trouble. Without `wanted` it is that from the start."""

    def __init__(self, *, wanted: bool) -> None:
        self._trusted = not wanted

    @contextmanager
    def while_loading(self) -> Iterator[None]:
        """NodeError: what the block asked for, and the driver could read, cannot be read from here."""
        try:
            yield
        except (StorageError, BundleError) as exc:
            if self._trusted:
                raise
            raise NodeError(str(exc)) from exc

    def look_at(self, pictures: Sequence[Answer | Picture]) -> None:
        """NodeError: not one of these pictures could be read, and none ever was from here."""
        unread = [one for one in pictures if isinstance(one, Answer) and one.status in _OF_THE_STORE]
        if not self._trusted and pictures and len(unread) == len(pictures):
            raise NodeError(unread[0].error or unread[0].status)
        self._trusted = True
