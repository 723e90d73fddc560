"""Rows for pictures that are listed no more: status `deleted`, with the etag as it was last seen."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import date

import pyarrow.compute as pc

from labelmill.label.todo.todo import Todo
from labelmill.model.bundle import Bundle
from labelmill.model.labeler import Answer
from labelmill.storage import Store
from labelmill.table.data_file import DataFile, put_data_file
from labelmill.table.row import PARTITION
from labelmill.table.rows import make_rows

__all__ = ["put_deleted"]

_REASON = "no longer in the store"


def put_deleted(
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
    for part, gone in enumerate(todo.gone()):
        for number, bundle in enumerate(bundles):
            of_model = gone.filter(pc.field("model") == number)
            if of_model.num_rows:
                answers = [Answer("deleted", _REASON, None, None, None)] * of_model.num_rows
                rows = make_rows(
                    of_model,
                    answers,
                    [[]] * len(answers),
                    bundle,
                    scores="none",
                    settings_digest=settings_digest,
                    run_id=run_id,
                )
                path = f"{PARTITION}={day}/{run_id}-deleted-{part:06d}-{number}.parquet"
                yield put_data_file(store, path, rows, day)
