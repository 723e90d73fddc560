"""The one stage of a label job: a worker takes a chunk of the to-do list, and a finished data file comes out.

Fetching, decoding and labelling share a process, one per core, so that no pixel ever crosses between processes; the
next batches are fetched while one is decoded and labelled. What a worker returns is a few hundred bytes a chunk.

A picture may take the process down with it, and Ray would hand its chunk to a new worker for ever. So an attempt leaves
a note beside the table, and whoever finds the note of another tries each picture in a child process first.
"""

from __future__ import annotations

import json
import resource
import signal
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from labelmill.errors import (
    ChangedError,
    ClusterError,
    ForbiddenError,
    ImageError,
    LabelmillError,
    NotFoundError,
    StorageError,
)
from labelmill.images.trial import Trial
from labelmill.label.fetch import Fetched, read_items
from labelmill.label.plan import Todo
from labelmill.label.row import PARTITION
from labelmill.label.rows import make_rows
from labelmill.label.table import DataFile, existing_data_file, put_data_file
from labelmill.model.bundle import Bundle
from labelmill.model.engines import EngineName
from labelmill.model.labeler import Answer, Labeler, label_together
from labelmill.storage import num_retries, open_store

__all__ = ["Chunk", "ChunkLabeler", "Stage"]

_BATCHES_AHEAD = 2
_MAX_ATTEMPTS = 4
_OUTPUT_TIMEOUT_S = 300.0  # a store that comes back within minutes shall not cost the night's run


@dataclass(frozen=True)
class Stage:
    """All that a worker needs to know; it travels to each once."""

    bundles: tuple[Bundle, ...]
    engines: tuple[EngineName, ...]
    todo: Todo
    output: str
    run_id: str
    labelled_on: str
    settings_digest: str
    scores: str
    embeddings: bool
    max_pixels: int
    timeout_s: float  # for decoding and labelling one batch, or one picture where a batch took longer
    batch_size: int
    num_threads: int
    decode_threads: int
    names_are_exclusive: bool  # whether the store honours "write only if absent"


@dataclass
class Chunk:
    """What became of one chunk: its data file, what its rows say, and what they cost."""

    chunk: int
    file: DataFile
    num_rows: int
    statuses: dict[str, int]
    labels: dict[str, int]
    seconds: dict[str, float] = field(default_factory=dict)  # of waiting or working, by stage
    cpu_s: float = 0.0
    peak_rss_bytes: int = 0
    retries: int = 0  # requests to the store that had to be sent again

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> Chunk:
        """From what `to_json` wrote, parsed."""
        return cls(**{**fields, "file": DataFile(**fields["file"])})


class ChunkLabeler:
    """A worker: the models are loaded once, then each call turns chunks into data files."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._output = open_store(stage.output, timeout_s=_OUTPUT_TIMEOUT_S)
        self._labelers = [self._load(*pair) for pair in zip(stage.bundles, stage.engines, strict=True)]
        self._readers = ThreadPoolExecutor(_BATCHES_AHEAD, thread_name_prefix="read")

    def _load(self, bundle: Bundle, engine: EngineName) -> Labeler:
        stage = self._stage
        return Labeler(
            bundle,
            engine,
            num_threads=stage.num_threads,
            max_pixels=stage.max_pixels,
            batch_size=stage.batch_size,
            decode_threads=stage.decode_threads,
            embeddings=stage.embeddings,
        )

    def __call__(self, batch: dict[str, NDArray[np.int64]]) -> dict[str, list[str]]:
        """Chunk numbers in, one JSON text for each out: the shape that Ray Data asks for."""
        return {"chunk": [self._outcome(int(number)) for number in batch["chunk"]]}

    def _outcome(self, number: int) -> str:
        """A `Chunk`, or the error that ends the run: Ray prints the traceback of one that is raised on the terminal."""
        try:
            return self.label(number).to_json()
        except LabelmillError as exc:
            return json.dumps({"error": type(exc).__name__, "message": str(exc)})

    def label(self, number: int) -> Chunk:
        started_cpu_s, retries_before = time.process_time(), num_retries()
        stage = self._stage
        path = f"{PARTITION}={stage.labelled_on}/{stage.run_id}-{number:08d}.parquet"
        if stage.names_are_exclusive:
            # An earlier attempt may have died between writing its file and telling the driver.
            try:
                return _summary(number, *existing_data_file(self._output, path, stage.labelled_on))
            except NotFoundError:
                pass
        else:
            path = path.replace(".parquet", f"-{time.time_ns():x}.parquet")
        with _attempt(stage.todo.folder, number) as attempt:
            items = stage.todo.read(number)
            seconds: dict[str, float] = {}
            answers = self._answers(items, seconds, careful=attempt > 1)
            rows = self._rows(items, answers)
            started = time.perf_counter()
            file = put_data_file(self._output, path, rows, stage.labelled_on)
            seconds["write"] = time.perf_counter() - started
        chunk = _summary(number, file, rows)
        chunk.seconds = seconds
        chunk.cpu_s = time.process_time() - started_cpu_s
        chunk.retries = num_retries() - retries_before
        chunk.peak_rss_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return chunk

    def _rows(self, items: pa.Table, answers: Sequence[Sequence[Answer]]) -> pa.Table:
        """One row for each item and model that lacks it."""
        stage, tables = self._stage, []
        for model, (bundle, found) in enumerate(zip(stage.bundles, answers, strict=True)):
            rows = make_rows(
                items,
                found,
                bundle,
                scores=stage.scores,
                settings_digest=stage.settings_digest,
                run_id=stage.run_id,
            )
            tables.append(rows.filter(pc.not_equal(pc.bit_wise_and(items["lacking"], 1 << model), 0)))
        return pa.concat_tables(tables)

    def _answers(self, items: pa.Table, seconds: dict[str, float], *, careful: bool) -> list[list[Answer]]:
        """[models][items]"""
        answers: list[list[Answer]] = [[] for _ in self._labelers]
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
                for found, more in zip(answers, labelled, strict=True):
                    found += more
        seconds["fetch"] = waited
        seconds.update({name: now - before[name] for name, now in self._seconds().items()})
        return answers

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

    def _label_fetched(self, fetched: Sequence[Fetched]) -> list[list[Answer]]:
        """[models][fetched]"""
        with _time_limit(self._stage.timeout_s):
            labelled = label_together(self._labelers, [item for item in fetched if isinstance(item, bytes)])
        return [_in_order(fetched, found) for found in labelled]

    def _label_carefully(self, fetched: Sequence[Fetched], trial: Trial) -> list[list[Answer]]:
        """The same, with an answer in the place of each picture that harms the process that decodes it; and each of the
        others with a time limit of its own."""
        one_by_one = [self._label_fetched([_tried(item, trial)]) for item in fetched]
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


@contextmanager
def _attempt(folder: str, chunk: int) -> Iterator[int]:
    """Which attempt at this chunk this is, counted by notes that outlive the process; they go with its success."""
    notes, prefix = open_store(folder), f"attempts/{chunk:08d}"
    attempt = 1 + len(list(notes.keys(prefix)))
    if attempt > _MAX_ATTEMPTS:
        raise ClusterError(
            f"the workers that labelled chunk {chunk} died {_MAX_ATTEMPTS} times, while each of its pictures was "
            "decoded well alone. Most likely the machine runs out of memory: lower batch_size, or give workers more "
            "memory, and run the same command again."
        )
    notes.write(f"{prefix}/{attempt}", b"")
    yield attempt
    for number in range(1, attempt + 1):
        notes.delete(f"{prefix}/{number}")


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    """End this process when the block takes longer, even when C code in it never gives the interpreter back: the
    kernel sends SIGALRM, which nothing here catches. The chunk's next attempt finds the picture that did it.
    """
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _in_order(fetched: Sequence[Fetched], labelled: list[Answer]) -> list[Answer]:
    answers = iter(labelled)
    return [next(answers) if isinstance(item, bytes) else _not_labelled(item) for item in fetched]


def _not_labelled(reason: StorageError | ImageError) -> Answer:
    error = " ".join(str(reason).split())
    if isinstance(reason, ImageError):
        return Answer(reason.status, error)
    status = {NotFoundError: "missing", ForbiddenError: "forbidden", ChangedError: "changed"}.get(type(reason))
    return Answer(status or "fetch_failed", error)


def _summary(number: int, file: DataFile, rows: pa.Table) -> Chunk:
    # A picture has the same status for every model: it was fetched and decoded once for all.
    statuses = dict(zip(rows["uri"].to_pylist(), rows["status"].to_pylist(), strict=True))
    labels: Counter[str] = Counter()
    models = rows["model"].unique().to_pylist()
    for model in models:
        own = rows.filter(pc.equal(rows["model"], model))
        found = Counter(pc.list_flatten(own["labels"]).combine_chunks().field("label").to_pylist())
        labels.update({label if len(models) == 1 else f"{model} {label}": count for label, count in found.items()})
    return Chunk(number, file, len(statuses), dict(Counter(statuses.values())), dict(labels))
