"""What an inventory lists: a picture with what is known of it before it is read."""

from __future__ import annotations

import re

import pyarrow as pa

__all__ = ["ITEM_SCHEMA", "member_of"]

_MEMBER = re.compile(r"(?i)^(.*?\.(tar|parquet))#(.*)$", re.DOTALL)

ITEM_SCHEMA = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64()),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("modified_at", pa.timestamp("us", tz="UTC")),
        pa.field("offset", pa.int64()),
        pa.field("archive", pa.string()),
    ]
)
"""A picture as an inventory lists it. `offset` is null for an object of its own; of a member of a shard, `uri` is
`<shard>#<member>`, `etag` the shard's, and `offset` the byte at which it begins in a tar, or its row in a Parquet file.
A shard that cannot be listed stands for its members: its own uri, and as `offset` the byte from which it is damaged.
`archive` is the storage class of an object that cannot be read before it is restored; null, if it can.
What an inventory does not know is null; an etag is "" where the store would not tell, so that reading must fail.
"""


def member_of(uri: str) -> tuple[str, str] | None:
    """The shard and the member that the uri of an item with an offset names; None where it is a shard's own."""
    found = _MEMBER.match(uri)
    return (found[1], found[3]) if found else None
