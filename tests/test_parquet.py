"""A damaged file is one kind of error, whatever Arrow makes of it."""

import io
import random

import pyarrow as pa
import pytest
from pyarrow import parquet

from labelmill.errors import DataError
from labelmill.parquet import parquet_bytes, read_parquet

ROWS = pa.table({"uri": [f"{number}.jpg" for number in range(500)], "labels": [["a"]] * 500})


def test_rows_are_the_same_when_read_again():
    data = parquet_bytes(ROWS)
    assert read_parquet(data).equals(ROWS)
    assert read_parquet(data, ["labels"]).equals(ROWS.select(["labels"]))


@pytest.mark.parametrize("seed", range(4))
def test_a_damaged_file_is_an_error_of_ours(seed):
    data, rng, refused = parquet_bytes(ROWS), random.Random(seed), 0
    for _ in range(100):
        damaged = bytearray(data)
        if rng.random() < 0.3:
            del damaged[rng.randrange(len(damaged)) :]
        else:
            for _ in range(4):
                damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        try:
            read_parquet(bytes(damaged))
        except DataError:
            refused += 1
    assert refused > 50


def test_a_bit_that_turned_in_a_page_never_gives_other_rows():
    rows = ROWS.append_column("offset", pa.array([number * 7123 for number in range(500)]))
    data, rng, refused = parquet_bytes(rows), random.Random(0), 0
    footer_bytes = int.from_bytes(data[-8:-4], "little") + 8
    for _ in range(500):
        damaged = bytearray(data)
        damaged[rng.randrange(len(data) - footer_bytes)] ^= 1 << rng.randrange(8)
        try:
            assert read_parquet(bytes(damaged)).equals(rows)
        except DataError:
            refused += 1
    assert refused > 450


def test_a_file_of_another_program_has_no_checksums_and_is_read():
    file = io.BytesIO()
    parquet.write_table(ROWS, file, compression="zstd")
    assert read_parquet(file.getvalue()).equals(ROWS)
