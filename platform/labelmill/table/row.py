"""The row of the label table: the one record that flows through a label job, and the words it may carry."""

from __future__ import annotations

import pyarrow as pa

__all__ = ["DATA_SCHEMA", "FINAL", "PARTITION", "RETRIED", "SCHEMA", "STATUSES"]

FINAL = ("ok", "unreadable", "unsupported", "too_large", "crashed", "timed_out", "deleted")
RETRIED = ("missing", "forbidden", "fetch_failed", "changed", "archived")
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

PARTITION = "labelled_on"
SCHEMA = DATA_SCHEMA.append(pa.field(PARTITION, pa.date32()))
"""A row as a reader of the table sees it."""
