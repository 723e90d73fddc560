"""Whose fault it is that nodes give chunks back: their own, that of the keys, or the pictures'."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from socket import gethostname
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from labelmill.errors import CredentialsError, NodeError, StorageError
from labelmill.label.inventory.item import member_of
from labelmill.label.work.fetch import Fetched, not_labelled, read_items
from labelmill.label.work.stage import Stage
from labelmill.storage import read_ranges
from labelmill.table.table import LabelTable

if TYPE_CHECKING:  # what knows Ray is imported once Ray's settings are made
    from labelmill.label.spread.pipeline import Refused

__all__ = ["are_the_pictures_to_blame", "no_node"]

_CHUNKS_TRIED, _PICTURES_TRIED, _OTHERS_TRIED = 3, 8, 64
_NAMED = 3  # reasons


def are_the_pictures_to_blame(stage: Stage, refused: Sequence[Refused]) -> bool:
    """Whether some of the pictures that nodes could not read cannot be read here either.

    NodeError: and no others can, as access is denied to all: that is a matter of the keys.
    """
    doubted = [one for one in refused if not one.certain][:_CHUNKS_TRIED]
    try:
        tried = [found for one in doubted for found in read_items(stage.todo.read(one.chunk).slice(0, _PICTURES_TRIED))]
        if not tried or any(isinstance(found, bytes) for found in tried):
            return False
        if all(map(_is_denied, tried)) and not _reads_others(stage):
            raise no_node(stage, doubted)
    except CredentialsError:
        return False
    return True


def no_node(stage: Stage, refused: Sequence[Refused]) -> NodeError:
    """What ends a run in which no node can label."""
    if stage.alone:
        who, reasons = f"this machine, {gethostname()}, cannot", [one.reason for one in refused]
    else:
        who, reasons = "none of the cluster's nodes can", [f"{one.address}: {one.reason}" for one in refused]
    return NodeError(
        f"{who} read what it should label, or write the labels ({'; '.join(list(dict.fromkeys(reasons))[:_NAMED])}). "
        "Every node needs credentials that the stores take, and the folders that the spec names; then run the same "
        "command again, which goes on from here."
    )


def _is_denied(found: Fetched) -> bool:
    return not isinstance(found, bytes) and not_labelled(found).status == "forbidden"


def _reads_others(stage: Stage) -> bool:
    """Whether access is given to some other picture: of the to-do list, or of what was labelled before."""
    if not all(map(_is_denied, read_items(stage.todo.sample(_OTHERS_TRIED)))):
        return True
    rows = LabelTable(stage.output).batches(["uri", "status"], status="ok")
    labelled = (uri for batch in rows for uri in _ok(batch))
    return any(isinstance(found, bytes) for found in _first_bytes(list(islice(labelled, _PICTURES_TRIED))))


def _ok(batch: pa.RecordBatch) -> list[str]:
    uris: list[str] = batch["uri"].filter(pc.equal(batch["status"], "ok")).to_pylist()
    return uris


def _first_bytes(uris: Sequence[str]) -> list[bytes | StorageError]:
    return read_ranges([((member_of(uri) or (uri, ""))[0], None, 0, 1) for uri in uris])
