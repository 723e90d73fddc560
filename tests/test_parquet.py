"""A damaged file is one kind of error, whatever Arrow makes of it."""

import random

import pyarrow as pa
import pytest

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
