"""A list of pictures that somebody wrote: a Parquet, CSV or JSONL file with the column `uri`.

Optional columns: `size_bytes` (or `size`) and `etag`, without which the store is asked. A relative uri starts where the
file lies. Rows are streamed: no part of the list is held for longer than its batch.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv as arrow_csv
from pyarrow import json as arrow_json
from pyarrow import parquet

from labelmill.address import split_uri
from labelmill.errors import DataError, StorageError
from labelmill.label.inventory.source import Source, item_batch
from labelmill.storage import RangedFile, as_listed, open_object, open_store, read_infos

__all__ = ["Manifest", "malformed_is_told", "stream_csv"]

_COLUMNS = {"uri": pa.string(), "size_bytes": pa.int64(), "size": pa.int64(), "etag": pa.string()}
_BATCH_ROWS = 8192
_BLOCK_BYTES = 4 * 2**20


class Manifest(Source):
    """The pictures that a file lists."""

    def __init__(self, uri: str, timeout_s: float) -> None:
        root, key = split_uri(uri)
        self._timeout_s = timeout_s
        self.describe = open_store(root).address(key)
        self.base = self.describe.rpartition("/")[0]
        self.sought = f"rows in the manifest {self.describe}"

    def items(self, *, in_order: bool) -> Iterator[pa.RecordBatch]:
        rows = 0
        for batch in self._batches():
            yield _items(batch, self.describe, self.base, rows)
            rows += batch.num_rows

    def probe(self) -> str:
        """The file's columns, and whether its first picture is there."""
        with self._open() as file:
            names = self._names(file)
        batch = next((batch for batch in self.items(in_order=True) if batch.num_rows), None)
        if batch is None:
            raise DataError("there, but without a single row")
        (first,) = read_infos(batch["uri"][:1].to_pylist())
        if isinstance(first, StorageError):
            raise DataError(f"there, but its first picture is not: {first}")
        return f"there, columns {', '.join(name for name in _COLUMNS if name in names)}; its first picture is there"

    def _batches(self) -> Iterator[pa.RecordBatch]:
        with self._open() as file:
            names = self._names(file)
        # A field that the first row of a JSONL file lacks may come later, and one that never does is null.
        wanted = {name: kind for name, kind in _COLUMNS.items() if self._kind == "jsonl" or name in names}
        with self._open() as file, malformed_is_told(self.describe):
            if self._kind == "parquet":
                # Without a buffer a whole column chunk is held, and some writers make one of all rows.
                table = parquet.ParquetFile(file, buffer_size=_BLOCK_BYTES)
                yield from table.iter_batches(_BATCH_ROWS, columns=list(wanted))
            elif self._kind == "csv":
                yield from stream_csv(file, wanted)
            else:
                yield from _stream_jsonl(file, wanted)

    def _names(self, file: io.RawIOBase) -> list[str]:
        """The columns that the file has; DataError where `uri` is not among them."""
        with malformed_is_told(self.describe):
            if self._kind == "parquet":
                names: list[str] = parquet.ParquetFile(file).schema_arrow.names
            elif self._kind == "csv":
                lines = io.TextIOWrapper(io.BufferedReader(file), "utf-8-sig", newline="")
                names = next(csv.reader(lines), [])
            else:
                line = next((line for line in io.BufferedReader(file) if line.strip()), b"{}")
                row = json.loads(line.decode("utf-8-sig"))
                names = list(row) if isinstance(row, dict) else []
        if "uri" not in names:
            found = ", ".join(repr(name) for name in names[:8]) or "none"
            raise DataError(f"{self.describe}: expected a column 'uri', found {found}. Rename the one with addresses.")
        return names

    @contextmanager
    def _open(self) -> Iterator[io.RawIOBase]:
        with open_object(self.describe, timeout_s=self._timeout_s) as file:
            yield unpacked(file) if self.describe.lower().endswith(".gz") else file

    @property
    def _kind(self) -> str:
        return self.describe.lower().removesuffix(".gz").rpartition(".")[2]


def unpacked(file: RangedFile) -> io.RawIOBase:
    """What a gzip file holds, read from its start to its end."""
    packed: io.RawIOBase = pa.CompressedInputStream(pa.PythonFile(file), "gzip")
    return packed


def stream_csv(
    file: io.RawIOBase, columns: dict[str, pa.DataType], names: list[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """The `columns` of a CSV file; `names` where it has no header."""
    yield from arrow_csv.open_csv(
        file,
        arrow_csv.ReadOptions(block_size=_BLOCK_BYTES, column_names=names),
        arrow_csv.ParseOptions(newlines_in_values=True),
        arrow_csv.ConvertOptions(include_columns=list(columns), column_types=columns),
    )


def _stream_jsonl(file: io.RawIOBase, columns: dict[str, pa.DataType]) -> Iterator[pa.RecordBatch]:
    parse = arrow_json.ParseOptions(
        explicit_schema=pa.schema(list(columns.items())), unexpected_field_behavior="ignore"
    )
    yield from arrow_json.open_json(file, arrow_json.ReadOptions(block_size=_BLOCK_BYTES), parse)


@contextmanager
def malformed_is_told(uri: str) -> Iterator[None]:
    """Turns what a reader says of a file that is not what its name says into a DataError."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, csv.Error) as exc:
        raise DataError(f"{uri}: cannot be read as its name says: {' '.join(str(exc).split())[:300]}") from exc


def _items(batch: pa.RecordBatch, where: str, base: str, rows_before: int) -> pa.RecordBatch:
    names = batch.schema.names
    with malformed_is_told(where):
        uris = batch["uri"].cast(pa.string())
        sizes = [batch[name].cast(pa.int64()) for name in ("size_bytes", "size") if name in names]
        etags = batch["etag"].cast(pa.string()) if "etag" in names else None
    bare = pc.fill_null(pc.equal(uris, ""), True)
    if pc.any(bare).as_py():
        row = rows_before + pc.index(bare, True).as_py() + 1
        raise DataError(
            f"{where}: expected an address in each row, found none in row {row:,}: fill it in or remove it."
        )
    if etags is not None:
        etags = pc.utf8_trim(pc.replace_substring_regex(etags, "^W/", ""), '" ')
        etags = pc.if_else(pc.equal(etags, ""), pa.scalar(None, pa.string()), etags)
    return item_batch(uri=as_listed(uris, base), size_bytes=pc.coalesce(*sizes) if sizes else None, etag=etags)
