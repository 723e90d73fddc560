"""Shards of pictures as WebDataset and Hugging Face write them, made here."""

import io
import tarfile

import pyarrow as pa
from pyarrow import parquet

from pictures import jpeg_bytes

__all__ = ["parquet_shard", "tar_shard"]


def tar_shard(members, layout=tarfile.PAX_FORMAT) -> bytes:
    """A tar of (name, bytes); for a number, of that many pictures with a label each."""
    if isinstance(members, int):
        members = [
            pair
            for n in range(members)
            for pair in ((f"{n:06}.cls", b"3"), (f"{n:06}.jpg", jpeg_bytes(seed=n)), (f"{n:06}.json", b"{}"))
        ]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=layout) as archive:
        for name, data in members:
            header = tarfile.TarInfo(name)
            header.size = len(data)
            archive.addfile(header, io.BytesIO(data))
    return buffer.getvalue()


def parquet_shard(columns, row_group_size=4) -> bytes:
    buffer = io.BytesIO()
    parquet.write_table(pa.table(columns), buffer, row_group_size=row_group_size)
    return buffer.getvalue()
