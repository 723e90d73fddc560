"""The row of the label table: the one record that flows through a label job, and the words it may carry."""

from __future__ import annotations

import pyarrow as pa

__all__ = ["DATA_SCHEMA", "FINAL", "ITEM_SCHEMA", "PARTITION", "RETRIED", "SCHEMA", "STATUSES"]

FINAL = ("ok", "unreadable", "unsupported", "too_large", "crashed", "timed_out", "deleted")
RETRIED = ("missing", "forbidden", "fetch_failed", "changed")
STATUSES = FINAL + RETRIED

_LABELS = pa.list_(pa.struct([("label", pa.string()), ("confidence", pa.float32())]))

DATA_SCHEMA = pa.schema(
    [
        pa.field("uri", pa.string()),
        pa.field("etag", pa.string()),
        pa.field("size_bytes", pa.int64()),
        pa.field("modified_at", pa.timestamp("us", tz="UTC")),
        pa.field("status", pa.string()),
        pa.field("error", pa.string()),
        pa.field("width_px", pa.int32()),
        pa.field("height_px", pa.int32()),
        pa.field("labels", _LABELS),
        pa.field("scores", _LABELS),
        pa.field("embedding", pa.list_(pa.float32())),
        pa.field("model", pa.string()),
        pa.field("bundle_digest", pa.string()),
        pa.field("settings_digest", pa.string()),
        pa.field("run_id", pa.string()),
        pa.field("labelled_at", pa.timestamp("us", tz="UTC")),
    ]
)
"""A row as a data file holds it; the partition column lives in the file's folder."""

ITEM_SCHEMA = pa.schema(
    [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64()),
        pa.field("etag", pa.string(), nullable=False),
        pa.field("modified_at", pa.timestamp("us", tz="UTC")),
        pa.field("offset", pa.int64()),
    ]
)
"""A picture as an inventory lists it. `offset` is null for an object of its own; of a member of a shard, `uri` is
`<shard>#<member>`, `etag` the shard's, and `offset` the byte at which it begins in a tar, or its row in a Parquet file.
A shard that cannot be listed stands for its members: its own uri, and as `offset` the byte from which it is damaged.
What an inventory does not know is null; an etag is "" where the store would not tell, so that reading must fail.
"""

PARTITION = "labelled_on"
SCHEMA = DATA_SCHEMA.append(pa.field(PARTITION, pa.date32()))
"""A row as a reader of the table sees it."""
