"""A chunk on its way over a GPU, in three steps that Ray Data runs in processes of their own.

Fetching takes many tasks on cores, which also decode what the GPU cannot. The JPEGs of a chunk lie in one row of the
object store, where the process that has a GPU reads them in place; it answers with the networks' outputs. Writing is
tasks again. Several processes on one GPU would take turns on the whole of it, its JPEG engine included: see
`tests/benchmarks/gpu.py`.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from socket import gethostname

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from labelmill.label.work.attempts import numbered_attempt, time_limit, trial_of, tried
from labelmill.label.work.chunk import Chunk
from labelmill.label.work.doubt import NodeDoubt
from labelmill.label.work.fetch import Fetched, fetch_ahead, not_labelled, read_items
from labelmill.label.work.finish import Finisher
from labelmill.label.work.handover import ANSWERED, FETCHED, Row, account, one_row
from labelmill.label.work.spent import Spent, newly_spent
from labelmill.label.work.stage import Stage
from labelmill.model.answers import Answer, ForGpu, Picture, answered, decoded
from labelmill.model.engines import Gpu, Outputs

__all__ = ["Fetcher", "Networks", "Writer"]

logger = logging.getLogger(__name__)

_THREADS = 4  # of one GPU: some pictures are decoded while the networks see others


class Fetcher:
    """The first step, in a process of its own: reads pictures, and leaves to the GPU what it may decode."""

    def __init__(self, stage: Stage) -> None:
        self._stage, self._doubt = stage, NodeDoubt(stage)
        self._finisher = Finisher(stage)

    def fetch(self, number: int) -> pa.Table | Chunk:
        """One row (FETCHED), or the chunk where an earlier attempt finished it. NodeError: nothing can be read here."""
        begun_at, started = time.time(), time.perf_counter()
        with self._doubt.while_storing():
            items = self._stage.todo.read(number)  # first of all: who reads it sees the table's folder
            if found := self._finisher.finished_before(number):
                found.busy_s, found.spent = time.perf_counter() - started, [newly_spent()]
                return found
            with numbered_attempt(self._stage.todo.folder, number, "-fetch") as attempt:
                pictures, seconds = self._pictures(items, careful=attempt > 1)
                self._doubt.look_at(items, pictures)
        return self._row(number, begun_at, pictures, seconds)

    def _pictures(self, items: pa.Table, *, careful: bool) -> tuple[list[Picture | Answer], dict[str, float]]:
        pictures: list[Picture | Answer] = []
        seconds = {"fetch": 0.0, "decode": 0.0}
        batches = fetch_ahead(items, self._stage.batch_size)
        while True:
            started = time.perf_counter()
            fetched = next(batches, None)
            seconds["fetch"] += time.perf_counter() - started
            if fetched is None:
                return pictures, seconds
            started = time.perf_counter()
            pictures += self._decoded(fetched, careful=careful)
            seconds["decode"] += time.perf_counter() - started

    def _decoded(self, fetched: Sequence[Fetched], *, careful: bool) -> list[Picture | Answer]:
        """What the GPU does not decode is decoded here; after a death, in a child before."""
        if careful:
            with trial_of(self._stage) as trial:
                fetched = [tried(item, trial) for item in fetched]
        return _decoded(self._stage, fetched, on_gpu=True)

    def _row(
        self, number: int, begun_at: float, pictures: Sequence[Picture | Answer], seconds: dict[str, float]
    ) -> pa.Table:
        shown = {place: picture for place, picture in enumerate(pictures) if isinstance(picture, Picture)}
        sizes_px = [bundle.preprocessing.image_size_px for bundle in self._stage.bundles]
        batch, places = ForGpu.of(list(shown.values()), sizes_px), list(shown)
        ordered = [places[place] for place in batch.places]
        return one_row(
            FETCHED,
            chunk=number,
            begun_at=begun_at,
            account=account(seconds),
            places=ordered,
            sizes_px=[[shown[place].width_px, shown[place].height_px] for place in ordered],
            failed=_failures(enumerate(pictures)),
            jpegs=batch.jpegs,
            sizes_bytes=batch.sizes_bytes,
            pixels=batch.pixels_bhwc,
        )


class Networks:
    """The second step, in the process that has a GPU, with the networks on it. Several threads may call it at once."""

    def __init__(self, stage: Stage) -> None:
        self._stage, self._doubt = stage, NodeDoubt(stage)
        self._preprocessings = [bundle.preprocessing for bundle in stage.bundles]
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="gpu")
        self._lock = threading.Lock()
        self._loaded: Gpu | None = None
        self._precision = ""
        self._threads.submit(self._gpu)  # while the first pictures are fetched; what fails is tried again, and said

    def show(self, fetched: pa.Table) -> pa.Table:
        """One row (FETCHED) to one (ANSWERED). NodeError: the models, or the table's folder, cannot be read here."""
        row = Row(fetched)
        batch = ForGpu(row.bytes("jpegs"), row["sizes_bytes"], self._pixels(row), row["places"])
        notes = numbered_attempt(self._stage.todo.folder, row["chunk"], "-network")
        with self._doubt.while_storing(), notes as attempt:
            gpu, started = self._gpu(), time.perf_counter()
            # A JPEG may have taken the process down: then each is decoded alone, and where that can be watched.
            size, spread = (1, map) if attempt > 1 else (self._stage.batch_size, self._threads.map)
            shown = list(spread(partial(self._show, gpu, careful=attempt > 1), batch.parts(size)))
            seconds = {"forward": time.perf_counter() - started}
        return self._row(row, shown, seconds)

    def _gpu(self) -> Gpu:
        from labelmill.model.engines.torch_engine import TorchEngine, TorchOnGpu

        stage = self._stage
        with self._lock:
            if self._loaded is None:
                engines = [
                    TorchEngine(bundle, precision=stage.precision, embeddings=stage.embeddings)
                    for bundle in stage.bundles
                ]
                self._loaded = TorchOnGpu(engines)
                self._precision = ", ".join(dict.fromkeys(engine.precision for engine in engines))
        return self._loaded

    def _pixels(self, row: Row) -> list[NDArray[np.uint8]]:
        sizes_px = [one.image_size_px for one in self._preprocessings]
        found = zip(row.many_bytes("pixels"), sizes_px, strict=True)
        return [pixels.reshape(-1, size_px, size_px, 3) for pixels, size_px in found]

    def _show(self, gpu: Gpu, batch: ForGpu, *, careful: bool) -> _Shown:
        """JPEGs that the GPU does not decode, for whatever reason, are decoded in this process."""
        failed: list[_Failure] = []
        outputs = None
        if not batch.sizes_bytes or (gpu.decodes and not careful):
            outputs = self._forward(gpu, batch)
        if outputs is None:
            batch, failed = self._on_cores(batch, careful=careful)
            outputs = self._forward(gpu, batch) if batch.places else []
        return batch.places, outputs or [], failed

    def _forward(self, gpu: Gpu, batch: ForGpu) -> list[Outputs] | None:
        """A CUDA error ends the process, since it stays with it: Ray starts another."""
        try:
            with time_limit(self._stage.timeout_s):
                return gpu.forward(batch.jpegs, batch.sizes_bytes, batch.pixels_bhwc)
        except RuntimeError as exc:
            if "CUDA error" not in str(exc):
                raise
            logger.exception("this process ends, since a CUDA error stays with it; Ray starts another")
            os._exit(1)

    def _on_cores(self, batch: ForGpu, *, careful: bool) -> tuple[ForGpu, list[_Failure]]:
        fetched: Sequence[Fetched] = batch.images()
        if careful:
            with trial_of(self._stage) as trial:
                fetched = [tried(image, trial) for image in fetched]
        pictures = dict(zip(batch.places, _decoded(self._stage, fetched, on_gpu=False), strict=True))
        shown = {place: picture for place, picture in pictures.items() if isinstance(picture, Picture)}
        again = ForGpu.of(list(shown.values()), [one.image_size_px for one in self._preprocessings])
        return replace(again, places=list(shown)), _failures(pictures.items())

    def _row(self, row: Row, shown: Sequence[_Shown], seconds: dict[str, float]) -> pa.Table:
        sizes_px = dict(zip(row["places"], row["sizes_px"], strict=True))
        places = [place for part in shown for place in part[0]]
        outputs = [part[1] for part in shown if part[1]]
        by_network = list(zip(*outputs, strict=True))
        return one_row(
            ANSWERED,
            chunk=row["chunk"],
            begun_at=row["begun_at"],
            account=row.account(seconds, computed_in={gethostname(): self._precision}),
            places=places,
            sizes_px=[sizes_px[place] for place in places],
            failed=row["failed"] + [failure for part in shown for failure in part[2]],
            logits=[_joined([logits for logits, _ in parts]) for parts in by_network],
            features=[_joined([found for _, found in parts if found is not None]) for parts in by_network],
        )


class Writer:
    """The third step, in a process of its own: outputs to rows, and their data file."""

    def __init__(self, stage: Stage) -> None:
        self._stage, self._finisher, self._doubt = stage, Finisher(stage), NodeDoubt(stage)

    def write(self, answered_row: pa.Table) -> Chunk:
        """One row (ANSWERED) to the chunk. NodeError: the table's folder cannot be read or written here."""
        row, stage = Row(answered_row), self._stage
        with self._doubt.while_storing():
            items = stage.todo.read(row["chunk"])
            answers = [self._answers(row, network, items.num_rows) for network in range(len(stage.bundles))]
            decided = self._finisher.decide(
                items["uri"].to_pylist(), answers, lambda place: read_items(items.slice(place, 1))[0]
            )
            chunk = self._finisher.finish(row["chunk"], items, answers, decided)
        found = json.loads(row.account({}))
        chunk.seconds |= found["seconds"]
        chunk.spent = [Spent.from_fields(spent) for spent in found["spent"]]
        chunk.computed_in = found["computed_in"]
        chunk.busy_s = max(0.0, time.time() - row["begun_at"])
        return chunk

    def _answers(self, row: Row, network: int, count: int) -> list[Answer]:
        found: dict[int, Answer] = {place: Answer(status, error) for place, status, error in row["failed"]}
        places = row["places"]
        if places:
            pictures = [Picture(*size_px) for size_px in row["sizes_px"]]
            logits = row.many_bytes("logits")[network].view(np.float32).reshape(len(places), -1)
            features = row.many_bytes("features")[network].view(np.float32)
            outputs = logits, features.reshape(len(places), -1) if features.size else None
            found |= zip(places, answered(self._stage.bundles[network], pictures, outputs), strict=True)
        return [found[place] for place in range(count)]


_Failure = tuple[int, str, str | None]  # of a picture: its place in the chunk, status and error
_Shown = tuple[list[int], list[Outputs], list[_Failure]]  # of a batch: places, each network's outputs, and failures


def _failures(pictures: Iterable[tuple[int, Picture | Answer]]) -> list[_Failure]:
    return [(place, answer.status, answer.error) for place, answer in pictures if isinstance(answer, Answer)]


def _joined(outputs: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    return np.concatenate(outputs) if outputs else np.empty(0, np.float32)


def _decoded(stage: Stage, fetched: Sequence[Fetched], *, on_gpu: bool) -> list[Picture | Answer]:
    """A picture or an answer for each."""
    images = [item for item in fetched if isinstance(item, bytes)]
    preprocessings = [bundle.preprocessing for bundle in stage.bundles]
    with time_limit(stage.timeout_s):
        found = iter(decoded(images, preprocessings, max_pixels=stage.max_pixels, on_gpu=on_gpu))
    return [next(found) if isinstance(item, bytes) else not_labelled(item) for item in fetched]
