"""What one step of a chunk's way over a GPU hands to the next: one row, pictures and outputs as bytes in it.

A row cannot be split, nor mixed with that of another chunk, and lies in Ray's object store once: the next process reads
it in place.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from labelmill.label.work.spent import newly_spent

__all__ = ["ANSWERED", "FETCHED", "Row", "account", "one_row"]

_PICTURES = [
    ("outcome", pa.string()),
    ("chunk", pa.int64()),
    ("begun_at", pa.float64()),
    ("account", pa.string()),
    ("places", pa.list_(pa.int32())),
    ("sizes_px", pa.list_(pa.list_(pa.int32()))),
    ("failed", pa.string()),
]
FETCHED = pa.schema(
    [
        *_PICTURES,
        ("jpegs", pa.large_binary()),
        ("sizes_bytes", pa.list_(pa.int64())),
        ("pixels", pa.list_(pa.large_binary())),
    ]
)
"""A chunk that was fetched: `jpegs` and `pixels` as in `ForGpu`, their `places` in the chunk, width and height of each,
and place, status and error of the pictures that `failed`. Or an `outcome` that the steps pass on."""
ANSWERED = pa.schema([*_PICTURES, ("logits", pa.list_(pa.large_binary())), ("features", pa.list_(pa.large_binary()))])
"""The same, with the outputs of each network, float32, in the place of the pictures."""


class Row:
    """The one row of a table: values as Python's, numbers and pictures as views of the table's own memory."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __getitem__(self, name: str) -> Any:
        value = self._table[name][0].as_py()
        return json.loads(value) if name == "failed" else value

    def bytes(self, name: str) -> NDArray[np.uint8]:
        [found] = _views(self._column(name))
        return found

    def many_bytes(self, name: str) -> list[NDArray[np.uint8]]:
        return _views(self._column(name).flatten())

    def _column(self, name: str) -> pa.Array:
        [found] = [chunk for chunk in self._table[name].chunks if len(chunk)]
        return found

    def account(self, seconds: dict[str, float], **more: Any) -> str:
        """What the steps before took and spent, and what this one did."""
        before = json.loads(self["account"])
        added = {"seconds": before["seconds"] | seconds, "spent": [*before["spent"], asdict(newly_spent())]}
        return json.dumps(before | added | more)


def _views(values: pa.LargeBinaryArray) -> list[NDArray[np.uint8]]:
    """Each value as it lies in the array's memory. Asked for by its place, each would be copied, and the threads that
    feed the GPU wait meanwhile."""
    _, offsets, data = values.buffers()
    ends = np.frombuffer(offsets, np.int64, len(values) + 1, 8 * values.offset)
    whole = np.frombuffer(data, np.uint8) if data else np.empty(0, np.uint8)
    return [whole[start:end] for start, end in pairwise(ends)]


def account(seconds: dict[str, float]) -> str:
    """What the first step took and spent."""
    return json.dumps({"seconds": seconds, "spent": [asdict(newly_spent())]})


def one_row(schema: pa.Schema, **values: Any) -> pa.Table:
    """Of the values that are given; the others are null. Arrays are copied once, into the table."""

    def plain(name: str, value: Any) -> Any:
        if name == "failed" and value is not None:
            return json.dumps(value)
        if isinstance(value, np.ndarray):
            return np.ascontiguousarray(value).reshape(-1).view(np.uint8).data
        return [plain("", one) for one in value] if isinstance(value, list) else value

    return pa.table([pa.array([plain(f.name, values.get(f.name))], f.type) for f in schema], schema=schema)
