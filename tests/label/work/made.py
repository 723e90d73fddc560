"""Pictures and a to-do list for the tests of a chunk's way."""

import io

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from labelmill.label.todo.todo import Todo
from labelmill.storage import open_store

__all__ = ["assert_alike", "picture", "todo"]


def picture(seed, size=(60, 40)):
    out = io.BytesIO()
    colours = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC).save(out, "JPEG")
    return out.getvalue()


def todo(tmp_path, items, lacking, run_id="000000001-test"):
    """One chunk, as the plan writes it."""
    folder = tmp_path / "labels" / "_labelmill" / "runs" / run_id
    out = io.BytesIO()
    if "offset" not in items.column_names:
        items = items.append_column("offset", pa.nulls(items.num_rows, pa.int64()))
    pq.write_table(items.append_column("lacking", pa.array(lacking, pa.int64())), out)
    open_store(str(folder)).write("todo-000000.parquet", out.getvalue())
    return Todo(str(folder), items.num_rows, 64, items.num_rows)


def assert_alike(rows, expected):
    assert [(row["uri"], row["bundle_digest"], row["status"]) for row in rows] == [
        (row["uri"], row["bundle_digest"], row["status"]) for row in expected
    ]
    for row, wanted in zip(rows, expected, strict=True):
        assert (row["error"], row["width_px"], row["height_px"]) == tuple(
            wanted[name] for name in ("error", "width_px", "height_px")
        )
        for found, other in zip(row["scores"] or [], wanted["scores"] or [], strict=True):
            assert found["label"] == other["label"]
            assert found["confidence"] == pytest.approx(other["confidence"], abs=0.02)
        assert (row["embedding"] is None) == (wanted["embedding"] is None)
