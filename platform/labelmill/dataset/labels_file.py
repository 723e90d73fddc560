"""What a labels file says: rows of a picture's address, its labels and, where given, its split, group and slice.

csv       columns uri, labels[, split, group, slice]; several labels are separated by `;`, no label is an empty field
jsonl     {"uri": "a/1.jpg", "labels": ["cat", "dog"], "split": "train"}; labels may be one string as in csv
parquet   columns uri string, labels list<string> or string as in csv[, split, group, slice string]
"""

import io
from dataclasses import dataclass, field
from pathlib import PurePosixPath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from pyarrow import csv, json

from labelmill.address import split_uri
from labelmill.errors import DataError
from labelmill.parquet import read_parquet
from labelmill.storage import open_store

__all__ = ["FURTHER_COLUMNS", "LABEL_SEPARATOR", "LabelRows", "read_labels_file"]

LABEL_SEPARATOR = ";"
FURTHER_COLUMNS = ("split", "group", "slice")


@dataclass(frozen=True)
class LabelRows:
    """The rows as written: addresses [N], pairs (row, label), and those of FURTHER_COLUMNS that there are, strings [N].

    An empty string means that the row does not say.
    """

    uris: pa.Array
    rows: NDArray[np.int64]
    labels: pa.Array
    columns: dict[str, pa.Array] = field(default_factory=dict)


def read_labels_file(path: str) -> LabelRows:
    """Read a labels file from a folder or an object store.

    DataError: not a csv, jsonl or parquet file, damaged, or without the columns `uri` and `labels`. StorageError: it
    cannot be fetched.
    """
    root, key = split_uri(path)
    table = _parse(path, open_store(root).read(key))
    missing = [column for column in ("uri", "labels") if column not in table.column_names]
    if missing:
        raise DataError(
            f"{path}: no column {' and no column '.join(repr(name) for name in missing)}; "
            f"found {table.column_names}. A labels file has the columns uri, labels and, if you like, "
            f"{', '.join(FURTHER_COLUMNS)}."
        )
    rows, labels = _pairs(path, table.column("labels").combine_chunks())
    columns = {column: _strings(path, table, column) for column in FURTHER_COLUMNS if column in table.column_names}
    return LabelRows(_strings(path, table, "uri"), rows, labels, columns)


def _parse(path: str, data: bytes) -> pa.Table:
    suffix = PurePosixPath(path).suffix.lower()
    try:
        match suffix:
            case ".csv":
                words = dict.fromkeys(("uri", "labels", *FURTHER_COLUMNS), pa.string())
                return csv.read_csv(io.BytesIO(data), convert_options=csv.ConvertOptions(column_types=words))
            case ".jsonl" | ".ndjson":
                return json.read_json(io.BytesIO(data))
            case ".parquet":
                return read_parquet(data)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, DataError) as exc:
        raise DataError(f"{path}: cannot be read as {suffix[1:]}: {exc}") from exc
    raise DataError(
        f"{path}: expected a labels file that ends in .csv, .jsonl or .parquet, got {suffix or 'no ending'!r}."
    )


def _strings(path: str, table: pa.Table, column: str) -> pa.Array:
    values = table.column(column).combine_chunks()
    try:
        return pc.fill_null(values.cast(pa.string()), "")
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as exc:
        raise DataError(f"{path}: column {column!r} holds {values.type}, expected strings.") from exc


def _pairs(path: str, column: pa.Array) -> tuple[NDArray[np.int64], pa.Array]:
    if not pa.types.is_list(column.type) and not pa.types.is_large_list(column.type):
        column = pc.split_pattern(pc.fill_null(column.cast(pa.string()), ""), LABEL_SEPARATOR)
    rows = pc.list_parent_indices(column).to_numpy(zero_copy_only=False).astype(np.int64)
    flat = column.flatten()
    if pa.types.is_null(flat.type):
        flat = flat.cast(pa.string())
    if pa.types.is_nested(flat.type):
        raise DataError(f"{path}: column 'labels' holds {column.type}, expected strings or lists of strings.")
    labels = pc.utf8_trim_whitespace(pc.fill_null(flat.cast(pa.string()), ""))
    kept = pc.not_equal(labels, "")
    return rows[kept.to_numpy(zero_copy_only=False)], labels.filter(kept)
