"""Rows for pictures that nobody reads: those that are listed no more, those that lie in an archive, and those that come
back as they were, which get a copy of the row that they had.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime

import pyarrow as pa
import pyarrow.compute as pc

from labelmill.label.todo.todo import Todo
from labelmill.model.bundle import Bundle
from labelmill.model.labeler import Answer
from labelmill.storage import Store
from labelmill.table.data_file import DataFile, put_data_file
from labelmill.table.row import DATA_SCHEMA, PARTITION
from labelmill.table.rows import make_rows

__all__ = ["put_unread"]


def put_unread(
    todo: Todo,
    bundles: Sequence[Bundle],
    store: Store,
    *,
    settings_digest: str,
    run_id: str,
    labelled_on: date,
) -> Iterator[DataFile]:
    """Write the rows below the table's folder, `store`, and yield its files; committing them is the driver's."""
    day = labelled_on.isoformat()
    for part, pictures in enumerate(todo.unread()):
        for number, bundle in enumerate(bundles):
            of_model = pictures.filter(pc.field("model") == number)
            if of_model.num_rows:
                answers = [_answer(archive) for archive in of_model["archive"].to_pylist()]
                rows = make_rows(
                    of_model,
                    answers,
                    [[]] * len(answers),
                    bundle,
                    scores="none",
                    settings_digest=settings_digest,
                    run_id=run_id,
                )
                path = f"{PARTITION}={day}/{run_id}-unread-{part:06d}-{number}.parquet"
                yield put_data_file(store, path, rows, day)
    for part, rows in enumerate(todo.returned()):
        path = f"{PARTITION}={day}/{run_id}-returned-{part:06d}.parquet"
        yield put_data_file(store, path, _written_anew(rows, run_id), day)


def _answer(archive: str | None) -> Answer:
    if archive is None:
        return Answer("deleted", "no longer in the store", None, None, None)
    reason = f"in an archive, storage class {archive}: give it one that is read at once, and the next run labels it"
    return Answer("archived", reason, None, None, None)


def _written_anew(rows: pa.Table, run_id: str) -> pa.Table:
    """As they are, but for who wrote them and when: its settings and its labels are those of the row that is copied."""
    now = {"run_id": run_id, "labelled_at": datetime.now(UTC)}
    for name, value in now.items():
        kind = DATA_SCHEMA.field(name).type
        column = pa.repeat(pa.scalar(value, kind), rows.num_rows)
        rows = rows.set_column(DATA_SCHEMA.get_field_index(name), name, column)
    return rows.cast(DATA_SCHEMA)
