"""The one stage of a label job: a worker takes a chunk of the to-do list, and a finished data file comes out.

Fetching, decoding and labelling share a process, one per core, so that no pixel ever crosses between processes; the
next batches are fetched while one is decoded and labelled. What a worker returns is a few hundred bytes a chunk. Where
there are GPUs, the JPEGs cross as they are, to the process that has one, and the networks' answers come back.
"""

from __future__ import annotations

import os
import resource
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc

from labelmill.errors import (
    ChangedError,
    ForbiddenError,
    ImageError,
    NotFoundError,
    StorageError,
)
from labelmill.images.trial import Trial
from labelmill.label.todo.todo import Todo
from labelmill.label.work.attempts import numbered_attempt, time_limit
from labelmill.label.work.chunk import Chunk, chunk_of
from labelmill.label.work.fetch import Fetched, read_items
from labelmill.label.work.samples import Sampler
from labelmill.model.bundle import Bundle
from labelmill.model.engines import ElsewhereEngine, EngineName, Gpu, PrecisionName
from labelmill.model.labeler import Answer, Labeler, label_together
from labelmill.storage import Traffic, num_retries, open_store, traffic
from labelmill.table.data_file import existing_data_file, put_data_file
from labelmill.table.row import PARTITION
from labelmill.table.rows import make_rows

__all__ = ["ChunkLabeler", "Stage", "not_labelled"]

_BATCHES_AHEAD = 2
_Decided = list[tuple[str, float]]  # the labels of one picture, best first
_OUTPUT_TIMEOUT_S = 300.0  # a store that comes back within minutes shall not cost the night's run


@dataclass(frozen=True)
class Stage:
    """All that a worker needs to know; it travels to each once."""

    bundles: tuple[Bundle, ...]
    engines: tuple[EngineName, ...]
    precision: PrecisionName
    todo: Todo
    output: str
    run_id: str
    labelled_on: str
    settings_digests: tuple[str, ...]  # of each bundle
    scores: str
    embeddings: bool
    max_pixels: int
    timeout_s: float  # for decoding and labelling one batch, or one picture where a batch took longer
    batch_size: int
    names_are_exclusive: bool  # whether the store honours "write only if absent"
    receipt_pictures: int = 0  # small pictures of each label that the receipt wants to show


class ChunkLabeler:
    """A worker: the models are loaded once, then each call turns chunks into data files. With `gpu` they are loaded
    there, and the pictures that it can decode are left to it."""

    def __init__(self, stage: Stage, gpu: Gpu | None = None) -> None:
        self._stage = stage
        self._gpu = gpu
        self._output = open_store(stage.output, timeout_s=_OUTPUT_TIMEOUT_S)
        self._labelers = [self._load(*pair) for pair in zip(stage.bundles, stage.engines, strict=True)]
        self._readers = ThreadPoolExecutor(_BATCHES_AHEAD, thread_name_prefix="read")
        self._sampler = Sampler(stage.receipt_pictures)
        self._worker = f"{socket.gethostname()}:{os.getpid()}"
        self._told_cpu_s, self._told_traffic = 0.0, Traffic()

    def _load(self, bundle: Bundle, engine: EngineName) -> Labeler:
        stage = self._stage
        return Labeler(
            bundle,
            ElsewhereEngine(self._gpu, stage.precision) if self._gpu else engine,
            precision=stage.precision,
            num_threads=1,
            max_pixels=stage.max_pixels,
            batch_size=stage.batch_size,
            embeddings=stage.embeddings,
        )

    def label(self, number: int) -> Chunk:
        """Make the data file of a chunk, unless an earlier attempt made it; and say what that took."""
        started, retries_before = time.perf_counter(), num_retries()
        chunk = self._finished_before(number) or self._label(number)
        chunk.busy_s = time.perf_counter() - started
        chunk.worker, chunk.samples = self._worker, self._sampler.hand_over()
        chunk.retries = num_retries() - retries_before
        cpu_s, asked = time.process_time(), traffic()
        chunk.cpu_s, chunk.traffic = cpu_s - self._told_cpu_s, asked - self._told_traffic
        self._told_cpu_s, self._told_traffic = cpu_s, asked
        chunk.peak_rss_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return chunk

    def _finished_before(self, number: int) -> Chunk | None:
        """What an attempt made that may have died between writing its file and telling the driver."""
        stage = self._stage
        if not stage.names_are_exclusive:
            return None
        try:
            return chunk_of(number, *existing_data_file(self._output, _path(stage, number), stage.labelled_on))
        except NotFoundError:
            return None

    def _label(self, number: int) -> Chunk:
        stage = self._stage
        path = _path(stage, number)
        if not stage.names_are_exclusive:
            path = path.replace(".parquet", f"-{time.time_ns():x}.parquet")
        with numbered_attempt(stage.todo.folder, number) as attempt:
            items = stage.todo.read(number)
            seconds: dict[str, float] = {}
            rows = self._rows(items, *self._answers(items, seconds, careful=attempt > 1))
            started = time.perf_counter()
            file = put_data_file(self._output, path, rows, stage.labelled_on)
            seconds["write"] = time.perf_counter() - started
        chunk = chunk_of(number, file, rows)
        chunk.seconds = seconds
        return chunk

    def _rows(
        self, items: pa.Table, answers: Sequence[Sequence[Answer]], decided: Sequence[Sequence[_Decided]]
    ) -> pa.Table:
        """One row for each item and model that lacks it."""
        stage, tables = self._stage, []
        for model, (bundle, found, labels) in enumerate(zip(stage.bundles, answers, decided, strict=True)):
            rows = make_rows(
                items,
                found,
                labels,
                bundle,
                scores=stage.scores,
                settings_digest=stage.settings_digests[model],
                run_id=stage.run_id,
            )
            tables.append(rows.filter(pc.not_equal(pc.bit_wise_and(items["lacking"], 1 << model), 0)))
        return pa.concat_tables(tables)

    def _answers(
        self, items: pa.Table, seconds: dict[str, float], *, careful: bool
    ) -> tuple[list[list[Answer]], list[list[_Decided]]]:
        """[models][items], and the labels that each decides for."""
        answers: list[list[Answer]] = [[] for _ in self._labelers]
        decided: list[list[_Decided]] = [[] for _ in self._labelers]
        uris = iter(items["uri"].to_pylist())
        before = self._seconds()
        waited = 0.0
        batches = self._fetch(items)
        with self._trial() if careful else nullcontext() as trial:
            while True:
                started = time.perf_counter()
                fetched = next(batches, None)
                waited += time.perf_counter() - started
                if fetched is None:
                    break
                labelled = self._label_carefully(fetched, trial) if trial else self._label_fetched(fetched)
                labels = [self._decide(*pair) for pair in zip(self._stage.bundles, labelled, strict=True)]
                # The first model's: while their bytes are here, a few may be made small for the receipt.
                self._sampler.offer(list(islice(uris, len(fetched))), fetched, labelled[0], labels[0])
                for model, (found, names) in enumerate(zip(labelled, labels, strict=True)):
                    answers[model] += found
                    decided[model] += names
        seconds["fetch"] = waited
        seconds.update({name: now - before[name] for name, now in self._seconds().items()})
        return answers, decided

    def _decide(self, bundle: Bundle, answers: Sequence[Answer]) -> list[_Decided]:
        return [bundle.decide(a.confidences) if a.confidences is not None else [] for a in answers]

    def _seconds(self) -> Counter[str]:
        return sum((Counter(labeler.seconds) for labeler in self._labelers), Counter())

    def _fetch(self, items: pa.Table) -> Iterator[list[Fetched]]:
        """Batches of the pictures' bytes, or why there are none, in the items' order, read ahead."""
        size = self._stage.batch_size
        ahead: list[Future[list[Fetched]]] = []
        for start in range(0, items.num_rows, size):
            ahead.append(self._readers.submit(read_items, items.slice(start, size)))
            if len(ahead) > _BATCHES_AHEAD:
                yield ahead.pop(0).result()
        for future in ahead:
            yield future.result()

    def _label_fetched(self, fetched: Sequence[Fetched], *, on_cores: bool = False) -> list[list[Answer]]:
        """[models][fetched]"""
        images = [item for item in fetched if isinstance(item, bytes)]
        with time_limit(self._stage.timeout_s):
            labelled = label_together(self._labelers, images, on_cores=on_cores)
        return [_in_order(fetched, found) for found in labelled]

    def _label_carefully(self, fetched: Sequence[Fetched], trial: Trial) -> list[list[Answer]]:
        """The same, with an answer in the place of each picture that harms the process that decodes it; and each of the
        others with a time limit of its own."""
        one_by_one = [self._label_fetched([_tried(item, trial)], on_cores=True) for item in fetched]
        return [[found for [found] in answers] for answers in zip(*one_by_one, strict=True)]

    def _trial(self) -> Trial:
        stage = self._stage
        preprocessings = [bundle.preprocessing for bundle in stage.bundles]
        return Trial(preprocessings, max_pixels=stage.max_pixels, timeout_s=stage.timeout_s)


def _tried(item: Fetched, trial: Trial) -> Fetched:
    if isinstance(item, bytes):
        try:
            trial.decode(item)
        except ImageError as exc:
            return exc
    return item


def _in_order(fetched: Sequence[Fetched], labelled: list[Answer]) -> list[Answer]:
    answers = iter(labelled)
    return [next(answers) if isinstance(item, bytes) else not_labelled(item) for item in fetched]


def not_labelled(reason: StorageError | ImageError) -> Answer:
    """What the row of a picture says that could not be fetched or may not be decoded."""
    error = " ".join(str(reason).split())
    if isinstance(reason, ImageError):
        return Answer(reason.status, error)
    status = {NotFoundError: "missing", ForbiddenError: "forbidden", ChangedError: "changed"}.get(type(reason))
    return Answer(status or "fetch_failed", error)


def _path(stage: Stage, number: int) -> str:
    return f"{PARTITION}={stage.labelled_on}/{stage.run_id}-{number:08d}.parquet"
