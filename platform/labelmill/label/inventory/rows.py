"""Pictures in the rows of a Parquet file: a column of bytes, or a struct with `bytes`, as Hugging Face writes it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from labelmill.errors import DataError

__all__ = ["picture_column"]


def picture_column(schema: pa.Schema, wanted: str | None, uri: str) -> str:
    """The dotted name of the column that holds the pictures' bytes.

    DataError: there is none, there are several and the spec chooses none, or the one it chooses is not there.
    """
    found = [name for field in schema for name in _columns_of_bytes(field)]
    if wanted is not None:
        chosen = [name for name in found if name in (wanted, f"{wanted}.bytes")]
        if not chosen:
            raise DataError(f"{uri}: expected bytes in the column {wanted!r}, found {_listed(found, 'none')}.")
        return chosen[0]
    if not found:
        raise DataError(
            f"{uri}: expected a column of pictures (binary, or a struct with binary `bytes`), found "
            f"{_listed(schema.names, 'no column')}. Leave this file out with `exclude`."
        )
    if len(found) > 1:
        raise DataError(
            f"{uri}: expected one column of pictures, found {_listed(found, '')}: choose with `images.column`."
        )
    return found[0]


def _columns_of_bytes(field: pa.Field) -> Iterator[str]:
    if _is_bytes(field.type):
        yield field.name
    elif pa.types.is_struct(field.type):
        index = field.type.get_field_index("bytes")
        if index >= 0 and _is_bytes(field.type.field(index).type):
            yield f"{field.name}.bytes"


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind))


def _listed(names: Sequence[str], none: str) -> str:
    return ", ".join(map(repr, names[:8])) or none
