"""The to-do list's own form."""

import pytest

from labelmill.label.todo.todo import Todo, write_todo


@pytest.mark.parametrize(
    ("num_rows", "large", "chunk_rows"),
    [
        (1, None, 64),
        (20_000, None, 156),
        (131_072, None, 1024),
        (200_000, False, 1024),
        (200_000, True, 1562),
        (10**7, False, 1024),
        (10**7, True, 2048),
    ],
)
def test_chunks_grow_with_the_work_up_to_a_size_that_is_asked_for_late(tmp_path, num_rows, large, chunk_rows):
    asked = []
    draft = Todo(str(tmp_path), num_rows, 1, num_rows)
    todo = write_todo(draft, iter([]), iter([]), iter([]), large_chunks=lambda: asked.append(1) or large)
    assert todo.chunk_rows == chunk_rows
    assert bool(asked) == (large is not None)
