"""How the rows of a data file are spread: confidences, bytes and sizes, counted in bins whose counts can be added."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

__all__ = ["CONFIDENCE_BINS", "add_histograms", "histograms"]

CONFIDENCE_BINS = 20

Histograms = dict[str, dict[str, int]]


def histograms(rows: pa.Table) -> Histograms:
    """Of rows (DATA_SCHEMA), each a count by bin. `confidence`: of the labels given, bin 0 to 19 of equal width;
    `size_bytes` and `long_side_px`: the bin is the whole part of the logarithm to base 2."""
    confidences = pc.list_flatten(rows["labels"]).combine_chunks().field("confidence").to_numpy(zero_copy_only=False)
    sides = pc.max_element_wise(rows["width_px"], rows["height_px"]).drop_null().to_numpy()
    return {
        "confidence": _counts(np.minimum(confidences * CONFIDENCE_BINS, CONFIDENCE_BINS - 1).astype(np.int64)),
        "size_bytes": _counts(_logarithms(rows["size_bytes"].drop_null().to_numpy())),
        "long_side_px": _counts(_logarithms(sides)),
    }


def add_histograms(total: Histograms, more: Histograms) -> None:
    """Add the counts of `more` to `total`."""
    for name, counts in more.items():
        mine = total.setdefault(name, {})
        for bin_, count in counts.items():
            mine[bin_] = mine.get(bin_, 0) + count


def _logarithms(values: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.floor(np.log2(np.maximum(values, 1))).astype(np.int64)


def _counts(bins: NDArray[np.int64]) -> dict[str, int]:
    found, counts = np.unique(bins, return_counts=True)
    return {str(bin_): int(count) for bin_, count in zip(found, counts, strict=True)}
