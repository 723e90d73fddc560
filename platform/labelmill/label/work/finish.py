"""Answers become a data file of the table, and what the driver hears of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from labelmill.errors import NotFoundError
from labelmill.label.work.chunk import Chunk, chunk_of
from labelmill.label.work.fetch import Fetched
from labelmill.label.work.samples import Sampler
from labelmill.label.work.stage import Stage
from labelmill.model.bundle import Bundle
from labelmill.model.labeler import Answer
from labelmill.storage import open_store
from labelmill.table.data_file import existing_data_file, put_data_file
from labelmill.table.row import PARTITION
from labelmill.table.rows import make_rows

__all__ = ["Decided", "Finisher"]

_TIMEOUT_S = 300.0  # a store that comes back within minutes shall not cost the night's run
Decided = list[tuple[str, float]]
"""The labels of one picture with their confidences, best first."""


class Finisher:
    """Writes the data files of a run, each once: their names are made of run and chunk."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._output = open_store(stage.output, timeout_s=_TIMEOUT_S)
        self._sampler = Sampler(stage.receipt_pictures)

    def finished_before(self, number: int) -> Chunk | None:
        """What an attempt made that may have died between writing its file and telling the driver."""
        if not self._stage.names_are_exclusive:
            return None
        try:
            return chunk_of(number, *existing_data_file(self._output, self._path(number), self._stage.labelled_on))
        except NotFoundError:
            return None

    def decide(
        self, uris: Sequence[str], answers: Sequence[Sequence[Answer]], read: Callable[[int], Fetched]
    ) -> list[list[Decided]]:
        """The labels of a few pictures, [models][uris] as their answers. `read` gives the bytes of one of them: a few
        are made small for the receipt."""
        decided = [_labels(*pair) for pair in zip(self._stage.bundles, answers, strict=True)]
        self._sampler.offer(uris, answers[0], decided[0], read)
        return decided

    def finish(
        self,
        number: int,
        items: pa.Table,
        answers: Sequence[Sequence[Answer]],
        decided: Sequence[Sequence[Decided]],
    ) -> Chunk:
        """Put the chunk's file, unless it is there: answers and what they decided are [models][items]."""
        started, stage = time.perf_counter(), self._stage
        tables = [self._rows(model, items, *pair) for model, pair in enumerate(zip(answers, decided, strict=True))]
        path = self._path(number)
        if not stage.names_are_exclusive:
            path = path.replace(".parquet", f"-{time.time_ns():x}.parquet")
        rows = pa.concat_tables(tables)
        chunk = chunk_of(number, put_data_file(self._output, path, rows, stage.labelled_on), rows)
        chunk.samples, chunk.seconds["write"] = self._sampler.hand_over(), time.perf_counter() - started
        return chunk

    def _rows(self, model: int, items: pa.Table, answers: Sequence[Answer], decided: Sequence[Decided]) -> pa.Table:
        """One row for each item that lacks one of this model."""
        stage = self._stage
        rows = make_rows(
            items,
            answers,
            decided,
            stage.bundles[model],
            scores=stage.scores,
            settings_digest=stage.settings_digest,
            run_id=stage.run_id,
        )
        return rows.filter(pc.not_equal(pc.bit_wise_and(items["lacking"], 1 << model), 0))

    def _path(self, number: int) -> str:
        return f"{PARTITION}={self._stage.labelled_on}/{self._stage.run_id}-{number:08d}.parquet"


def _labels(bundle: Bundle, answers: Sequence[Answer]) -> list[Decided]:
    return [bundle.decide(a.confidences) if a.confidences is not None else [] for a in answers]
