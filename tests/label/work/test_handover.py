"""A row of pictures is read where it lies."""

import numpy as np
import pyarrow as pa

from labelmill.label.work.handover import FETCHED, Row, one_row


def test_pictures_are_read_in_place_from_any_slice_of_a_table():
    rows = [
        one_row(
            FETCHED,
            chunk=number,
            jpegs=np.full(1000, number, np.uint8),
            sizes_bytes=[400, 600],
            pixels=[np.full((number, 2, 2, 3), number, np.uint8), np.zeros((0, 2, 2, 3), np.uint8)],
        )
        for number in range(3)
    ]
    table = pa.concat_tables(rows).combine_chunks().slice(2)
    row = Row(table)
    jpegs, (first, second) = row.bytes("jpegs"), row.many_bytes("pixels")
    assert jpegs.tolist() == [2] * 1000
    assert first.tolist() == [2] * 24
    assert second.size == 0
    [memory] = table["jpegs"].chunks
    assert np.shares_memory(jpegs, np.frombuffer(memory.buffers()[2], np.uint8))
