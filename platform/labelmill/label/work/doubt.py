"""Whether it is the pictures or the node: a machine without credentials fails every picture that it is given."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pyarrow as pa

from labelmill.errors import BundleError, CredentialsError, NodeError, StorageError
from labelmill.label.work.fetch import read_items
from labelmill.label.work.stage import Stage
from labelmill.model.answers import Answer, Picture

__all__ = ["NodeDoubt"]

_OF_THE_STORE = {"missing", "forbidden", "fetch_failed", "changed"}
_OF_THE_KEYS = {"forbidden"}


class NodeDoubt:
    """What one process knows of its node. While there are others, it leaves to them a chunk of which it can read
    nothing, unless it can still read what it read before. On a machine alone the keys may be to blame."""

    def __init__(self, stage: Stage) -> None:
        self._others = stage.doubts_its_node and not stage.alone
        self._doubted: set[str] = set()
        if stage.doubts_its_node:
            self._doubted = _OF_THE_KEYS if stage.alone else _OF_THE_STORE
        self._read_before: pa.Table | None = None  # one item

    @contextmanager
    def while_storing(self) -> Iterator[None]:
        """NodeError: what the block asked for, and the driver could read, cannot be read from here, or what it made
        cannot be written."""
        try:
            yield
        except (StorageError, BundleError) as exc:
            if self._others or isinstance(exc, CredentialsError):
                raise NodeError(str(exc)) from exc
            raise

    def look_at(self, items: pa.Table, pictures: Sequence[Answer | Picture]) -> None:
        """NodeError: not one of these pictures could be read, and none can be that ever was."""
        unread = [one for one in pictures if isinstance(one, Answer) and one.status in self._doubted]
        if unread and len(unread) == len(pictures) and not self._still_reads():
            raise NodeError(unread[0].error or unread[0].status, certain=False)
        for place, one in enumerate(pictures):
            if not isinstance(one, Answer) or one.status not in _OF_THE_STORE:
                self._read_before = items.slice(place, 1)
                return

    def _still_reads(self) -> bool:
        return self._read_before is not None and isinstance(read_items(self._read_before)[0], bytes)
