"""The one stage of a label job: a worker takes a chunk of the to-do list, and a finished data file comes out.

Fetching, decoding and labelling share a process, one per core, so that no pixel ever crosses between processes; the
next batches are fetched while one is decoded and labelled. What a worker returns is a few hundred bytes a chunk.
"""

from __future__ import annotations

import json
import resource
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from labelmill.errors import ChangedError, ForbiddenError, ImageError, NotFoundError, StorageError
from labelmill.label.fetch import read_items
from labelmill.label.plan import Todo
from labelmill.label.row import DATA_SCHEMA, PARTITION
from labelmill.label.table import DataFile, existing_data_file, put_data_file
from labelmill.model.bundle import Bundle
from labelmill.model.engines import EngineName
from labelmill.model.labeler import Answer, Labeler
from labelmill.storage import open_store

__all__ = ["Chunk", "ChunkLabeler", "Stage"]

_BATCHES_AHEAD = 2
_TOP_K = 5


@dataclass(frozen=True)
class Stage:
    """All that a worker needs to know; it travels to each once."""

    bundle: Bundle
    todo: Todo
    output: str
    run_id: str
    labelled_on: str
    settings_digest: str
    scores: str
    engine: EngineName
    max_pixels: int
    batch_size: int
    num_threads: int
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

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Chunk:
        fields = json.loads(text)
        return cls(**{**fields, "file": DataFile(**fields["file"])})


class ChunkLabeler:
    """A worker: the model is loaded once, then each call turns chunks into data files."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._output = open_store(stage.output)
        self._labeler = Labeler(
            stage.bundle,
            stage.engine,
            num_threads=stage.num_threads,
            max_pixels=stage.max_pixels,
            batch_size=stage.batch_size,
        )
        self._readers = ThreadPoolExecutor(_BATCHES_AHEAD, thread_name_prefix="read")

    def __call__(self, batch: dict[str, NDArray[np.int64]]) -> dict[str, list[str]]:
        """Chunk numbers in, one JSON text of a `Chunk` for each out: the shape that Ray Data asks for."""
        return {"chunk": [self.label(int(number)).to_json() for number in batch["chunk"]]}

    def label(self, number: int) -> Chunk:
        started_cpu_s = time.process_time()
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
        listed = stage.todo.read(number)
        seconds: dict[str, float] = {}
        answers = self._answers(listed, seconds)
        rows = _rows(listed, answers, stage)
        started = time.perf_counter()
        file = put_data_file(self._output, path, rows, stage.labelled_on)
        seconds["write"] = time.perf_counter() - started
        chunk = _summary(number, file, rows)
        chunk.seconds = seconds
        chunk.cpu_s = time.process_time() - started_cpu_s
        chunk.peak_rss_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return chunk

    def _answers(self, listed: pa.Table, seconds: dict[str, float]) -> list[Answer]:
        answers: list[Answer] = []
        before = dict(self._labeler.seconds)
        waited = 0.0
        batches = self._fetch(listed)
        while True:
            started = time.perf_counter()
            fetched = next(batches, None)
            waited += time.perf_counter() - started
            if fetched is None:
                break
            answers += self._label_fetched(fetched)
        seconds["fetch"] = waited
        seconds.update({name: now - before.get(name, 0.0) for name, now in self._labeler.seconds.items()})
        return answers

    def _fetch(self, listed: pa.Table) -> Iterator[list[bytes | StorageError | ImageError]]:
        """Batches of the pictures' bytes, or why there are none, in the listing's order, read ahead."""
        size = self._stage.batch_size
        ahead: list[Future[list[bytes | StorageError | ImageError]]] = []
        for start in range(0, listed.num_rows, size):
            ahead.append(self._readers.submit(read_items, listed.slice(start, size)))
            if len(ahead) > _BATCHES_AHEAD:
                yield ahead.pop(0).result()
        for future in ahead:
            yield future.result()

    def _label_fetched(self, fetched: Sequence[bytes | StorageError | ImageError]) -> list[Answer]:
        labelled = iter(self._labeler.label([item for item in fetched if isinstance(item, bytes)]))
        return [next(labelled) if isinstance(item, bytes) else _not_fetched(item) for item in fetched]


def _not_fetched(reason: StorageError | ImageError) -> Answer:
    error = " ".join(str(reason).split())
    if isinstance(reason, ImageError):
        return Answer(reason.status, error, None, None, None)
    status = {NotFoundError: "missing", ForbiddenError: "forbidden", ChangedError: "changed"}.get(type(reason))
    return Answer(status or "fetch_failed", error, None, None, None)


def _rows(listed: pa.Table, answers: Sequence[Answer], stage: Stage) -> pa.Table:
    """The rows of a chunk (DATA_SCHEMA): one for each listed picture, in the listing's order."""
    bundle = stage.bundle
    decided = [bundle.decide(a.confidences) if a.confidences is not None else [] for a in answers]
    constant: dict[str, Any] = {
        "model": bundle.reference,
        "bundle_digest": bundle.digest,
        "settings_digest": stage.settings_digest,
        "run_id": stage.run_id,
        "labelled_at": datetime.now(UTC),
    }
    columns: dict[str, Any] = {
        **{name: listed[name] for name in ("uri", "etag", "size_bytes", "modified_at")},
        "status": [answer.status for answer in answers],
        "error": [answer.error for answer in answers],
        "width_px": [answer.width_px for answer in answers],
        "height_px": [answer.height_px for answer in answers],
        "labels": [[{"label": label, "confidence": confidence} for label, confidence in row] for row in decided],
        "scores": _scores([a.confidences for a in answers], bundle.labels, stage.scores),
        **{name: [value] * len(answers) for name, value in constant.items()},
    }
    return pa.table([pa.chunked_array(_column(columns[f.name], f.type)) for f in DATA_SCHEMA], schema=DATA_SCHEMA)


def _column(values: Any, kind: pa.DataType) -> Any:
    if isinstance(values, pa.ChunkedArray):
        return values.cast(kind).chunks or [pa.array([], kind)]
    return [values if isinstance(values, pa.Array) else pa.array(values, kind)]


def _scores(confidences: Sequence[NDArray[np.float32] | None], labels: Sequence[str], keep: str) -> pa.Array:
    """The raw confidences that `scores:` asks to keep, best first; null where there are none or none are kept."""
    kind = DATA_SCHEMA.field("scores").type
    if keep == "none":
        return pa.nulls(len(confidences), kind)
    count = len(labels) if keep == "all" else min(_TOP_K, len(labels))
    present = np.array([c is not None for c in confidences], dtype=bool)
    stacked = np.stack([c for c in confidences if c is not None]) if present.any() else np.empty((0, len(labels)))
    best = np.argsort(-stacked, axis=1, kind="stable")[:, :count]  # [pictures with labels, count]
    names = pa.array(labels, pa.string()).take(pa.array(best.ravel()))
    values = pa.array(np.take_along_axis(stacked, best, axis=1).ravel().astype(np.float32))
    pairs = pa.StructArray.from_arrays([names, values], fields=list(kind.value_type))
    offsets = np.concatenate([[0], np.cumsum(present) * count]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pairs, type=kind, mask=pa.array(~present))


def _summary(number: int, file: DataFile, rows: pa.Table) -> Chunk:
    statuses = Counter(rows["status"].to_pylist())
    labels = Counter(pc.list_flatten(rows["labels"]).combine_chunks().field("label").to_pylist())
    return Chunk(number, file, rows.num_rows, dict(statuses), dict(labels))
