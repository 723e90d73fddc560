"""Answers as rows of the label table."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from labelmill.model.bundle import Bundle
from labelmill.model.labeler import Answer
from labelmill.table.row import DATA_SCHEMA

__all__ = ["make_rows"]

_TOP_K = 5


def make_rows(
    items: pa.Table,
    answers: Sequence[Answer],
    decided: Sequence[Sequence[tuple[str, float]]],
    bundle: Bundle,
    *,
    scores: str,
    settings_digest: str,
    run_id: str,
) -> pa.Table:
    """The rows of one model (DATA_SCHEMA): one for each item, in the items' order. `decided` are its labels, best
    first."""
    constant: dict[str, Any] = {
        "model": bundle.reference,
        "bundle_digest": bundle.digest,
        "settings_digest": settings_digest,
        "run_id": run_id,
        "labelled_at": datetime.now(UTC),
    }
    columns: dict[str, Any] = {
        **{name: items[name] for name in ("uri", "etag", "size_bytes", "modified_at")},
        "status": [answer.status for answer in answers],
        "error": [answer.error for answer in answers],
        "width_px": [answer.width_px for answer in answers],
        "height_px": [answer.height_px for answer in answers],
        "labels": [[{"label": label, "confidence": confidence} for label, confidence in row] for row in decided],
        "scores": _scores([a.confidences for a in answers], bundle.labels, scores),
        "embedding": _embeddings([a.embedding for a in answers]),
        **{name: [value] * len(answers) for name, value in constant.items()},
    }
    return pa.table([pa.chunked_array(_column(columns[f.name], f.type)) for f in DATA_SCHEMA], schema=DATA_SCHEMA)


def _column(values: Any, kind: pa.DataType) -> Any:
    if isinstance(values, pa.ChunkedArray):
        return values.cast(kind).chunks or [pa.array([], kind)]
    return [values if isinstance(values, pa.Array) else pa.array(values, kind)]


def _scores(confidences: Sequence[NDArray[np.float32] | None], labels: Sequence[str], keep: str) -> pa.Array:
    """The raw confidences that `scores:` asks to keep, best first; null where there are none or none are kept."""
    kind = DATA_SCHEMA.field("scores").type
    if keep == "none":
        return pa.nulls(len(confidences), kind)
    count = len(labels) if keep == "all" else min(_TOP_K, len(labels))
    present = np.array([c is not None for c in confidences], dtype=bool)
    stacked = np.stack([c for c in confidences if c is not None]) if present.any() else np.empty((0, len(labels)))
    best = np.argsort(-stacked, axis=1, kind="stable")[:, :count]  # [pictures with labels, count]
    names = pa.array(labels, pa.string()).take(pa.array(best.ravel()))
    values = pa.array(np.take_along_axis(stacked, best, axis=1).ravel().astype(np.float32))
    pairs = pa.StructArray.from_arrays([names, values], fields=list(kind.value_type))
    return _lists(pairs, present, count, kind)


def _embeddings(embeddings: Sequence[NDArray[np.float16] | None]) -> pa.Array:
    """Pooled features, of one length in all rows; null where there are none."""
    kind = DATA_SCHEMA.field("embedding").type
    present = np.array([e is not None for e in embeddings], dtype=bool)
    if not present.any():
        return pa.nulls(len(embeddings), kind)
    stacked = np.stack([e for e in embeddings if e is not None])
    return _lists(pa.array(stacked.ravel().astype(np.float32)), present, stacked.shape[1], kind)


def _lists(values: pa.Array, present: NDArray[np.bool_], length: int, kind: pa.DataType) -> pa.Array:
    """`length` values for each row that is present, null for the others."""
    offsets = np.concatenate([[0], np.cumsum(present) * length]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values, type=kind, mask=pa.array(~present))
