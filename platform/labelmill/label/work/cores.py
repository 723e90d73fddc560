"""A chunk on one core: its pictures are fetched, decoded and labelled in one process, and a data file comes out.

No pixel ever crosses between processes, and the next batches are fetched while one is decoded and labelled. What a
worker returns is a few hundred bytes a chunk.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property
from socket import gethostname

import pyarrow as pa

from labelmill.images.trial import Trial
from labelmill.label.work.attempts import numbered_attempt, time_limit, trial_of, tried
from labelmill.label.work.chunk import Chunk
from labelmill.label.work.doubt import NodeDoubt
from labelmill.label.work.fetch import Fetched, fetch_ahead, not_labelled
from labelmill.label.work.finish import Decided, Finisher
from labelmill.label.work.spent import newly_spent
from labelmill.label.work.stage import Stage
from labelmill.model.answers import Answer
from labelmill.model.bundle import Bundle
from labelmill.model.engines import EngineName
from labelmill.model.labeler import Labeler, label_together

__all__ = ["ChunkLabeler"]


class ChunkLabeler:
    """A worker: the models are loaded once, with the first chunk, then each call turns a chunk into a data file."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._finisher, self._doubt = Finisher(stage), NodeDoubt(stage)

    @cached_property
    def _labelers(self) -> list[Labeler]:
        return [self._load(*pair) for pair in zip(self._stage.bundles, self._stage.engines, strict=True)]

    def _load(self, bundle: Bundle, engine: EngineName) -> Labeler:
        stage = self._stage
        return Labeler(
            bundle,
            engine,
            precision=stage.precision,
            num_threads=1,
            max_pixels=stage.max_pixels,
            batch_size=stage.batch_size,
            embeddings=stage.embeddings,
        )

    def label(self, number: int) -> Chunk:
        """Make the data file of a chunk, unless an earlier attempt made it; and say what that took. NodeError: nothing
        that it names can be read from here, or its file cannot be written, and was not."""
        started = time.perf_counter()
        with self._doubt.while_storing():
            items = self._stage.todo.read(number)  # first of all: who reads it sees the table's folder
            chunk = self._finisher.finished_before(number) or self._label(number, items)
        chunk.busy_s = time.perf_counter() - started
        chunk.spent = [newly_spent()]
        return chunk

    def _label(self, number: int, items: pa.Table) -> Chunk:
        with numbered_attempt(self._stage.todo.folder, number) as attempt:
            answers, decided, seconds = self._answers(items, careful=attempt > 1)
            self._doubt.look_at(items, answers[0])
            chunk = self._finisher.finish(number, items, answers, decided)
        chunk.seconds |= seconds
        chunk.computed_in = {gethostname(): ", ".join(dict.fromkeys(one.precision for one in self._labelers))}
        return chunk

    def _answers(
        self, items: pa.Table, *, careful: bool
    ) -> tuple[list[list[Answer]], list[list[Decided]], dict[str, float]]:
        """[models][items], the labels that each decides for, and where the time went."""
        answers: list[list[Answer]] = [[] for _ in self._labelers]
        decided: list[list[Decided]] = [[] for _ in self._labelers]
        uris = items["uri"].to_pylist()
        before, waited = self._seconds(), 0.0
        batches = fetch_ahead(items, self._stage.batch_size)
        with trial_of(self._stage) if careful else nullcontext() as trial:
            while True:
                started = time.perf_counter()
                fetched = next(batches, None)
                waited += time.perf_counter() - started
                if fetched is None:
                    break
                labelled = self._label_carefully(fetched, trial) if trial else self._label_fetched(fetched)
                place = len(answers[0])
                labels = self._finisher.decide(uris[place : place + len(fetched)], labelled, fetched.__getitem__)
                for model in range(len(self._labelers)):
                    answers[model] += labelled[model]
                    decided[model] += labels[model]
        took = {name: now - before[name] for name, now in self._seconds().items()}
        return answers, decided, {"fetch": waited, **took}

    def _seconds(self) -> Counter[str]:
        return sum((Counter(labeler.seconds) for labeler in self._labelers), Counter())

    def _label_fetched(self, fetched: Sequence[Fetched]) -> list[list[Answer]]:
        """[models][fetched]"""
        images = [item for item in fetched if isinstance(item, bytes)]
        with time_limit(self._stage.timeout_s):
            labelled = label_together(self._labelers, images)
        return [_in_order(fetched, found) for found in labelled]

    def _label_carefully(self, fetched: Sequence[Fetched], trial: Trial) -> list[list[Answer]]:
        """The same, with an answer in the place of each picture that harms the process that decodes it; and each of the
        others with a time limit of its own."""
        one_by_one = [self._label_fetched([tried(item, trial)]) for item in fetched]
        return [[found for [found] in answers] for answers in zip(*one_by_one, strict=True)]


def _in_order(fetched: Sequence[Fetched], labelled: list[Answer]) -> list[Answer]:
    answers = iter(labelled)
    return [next(answers) if isinstance(item, bytes) else not_labelled(item) for item in fetched]
