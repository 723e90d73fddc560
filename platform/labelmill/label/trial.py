"""A trial of the work before it is begun: a random sample of the to-do list, labelled as one worker would."""

from __future__ import annotations

import logging
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

import pyarrow as pa

from labelmill.label.plan import Todo
from labelmill.label.stage import not_fetched, read_batch
from labelmill.model.bundle import Bundle
from labelmill.model.labeler import Answer, Labeler
from labelmill.spec import LabelSpec
from labelmill.storage import traffic

__all__ = ["SAMPLE_PICTURES", "Trial", "try_sample"]

logger = logging.getLogger(__name__)

SAMPLE_PICTURES = 64
_READ_AT_ONCE = 32
_LABEL_AT_ONCE = 8


@dataclass(frozen=True)
class Trial:
    """What a sample of the to-do list was like, one picture at a time on one core. Medians; seconds a picture."""

    num_pictures: int
    statuses: dict[str, int]
    failures: list[dict[str, str]]  # status, uri, error
    size_bytes: float
    fetch_s: float  # with as many in flight as a worker has
    decode_s: float
    forward_s: float
    gets_a_picture: float

    @property
    def failed(self) -> int:
        return self.num_pictures - self.statuses.get("ok", 0)

    @property
    def picture_s(self) -> float:
        """Of one worker: it fetches ahead while it decodes and labels."""
        return max(self.fetch_s, self.decode_s + self.forward_s)

    @property
    def limited_by(self) -> str:
        stages = {"fetch": self.fetch_s, "decode": self.decode_s, "forward": self.forward_s}
        if self.fetch_s < self.decode_s + self.forward_s:
            del stages["fetch"]
        return max(stages, key=lambda name: stages[name])


def try_sample(spec: LabelSpec, bundle: Bundle, todo: Todo) -> Trial:
    """Label at most 64 pictures of a to-do list that is not empty, in this process, on one core; write nothing."""
    listed = _random_rows(todo)
    logger.info("labelling a sample of %d", listed.num_rows)
    before, started = traffic(), time.perf_counter()
    fetched = [
        item
        for start in range(0, listed.num_rows, _READ_AT_ONCE)
        for item in read_batch(listed.slice(start, _READ_AT_ONCE))
    ]
    fetch_s, gets = time.perf_counter() - started, (traffic() - before).gets
    labeler = Labeler(bundle, spec.engine, num_threads=1, max_pixels=spec.max_pixels, batch_size=_LABEL_AT_ONCE)
    answers, decode_s, forward_s = _label(labeler, [item for item in fetched if isinstance(item, bytes)])
    labelled = iter(answers)
    rows = [
        (uri, next(labelled) if isinstance(item, bytes) else not_fetched(item))
        for uri, item in zip(listed["uri"].to_pylist(), fetched, strict=True)
    ]
    failed = [(uri, answer) for uri, answer in rows if answer.status != "ok"]
    return Trial(
        num_pictures=listed.num_rows,
        statuses=dict(Counter(answer.status for _, answer in rows).most_common()),
        failures=[{"status": answer.status, "uri": uri, "error": answer.error or ""} for uri, answer in failed],
        size_bytes=median(listed["size_bytes"].to_pylist()),
        fetch_s=fetch_s / listed.num_rows,
        decode_s=decode_s,
        forward_s=forward_s,
        gets_a_picture=gets / listed.num_rows,
    )


def _random_rows(todo: Todo) -> pa.Table:
    """Of the same to-do list always the same rows."""
    chosen = sorted(random.Random(0).sample(range(todo.num_rows), min(SAMPLE_PICTURES, todo.num_rows)))
    return pa.concat_tables(
        todo.read(row // todo.chunk_rows).slice(row % todo.chunk_rows, 1) for row in chosen
    ).combine_chunks()


def _label(labeler: Labeler, pictures: Sequence[bytes]) -> tuple[list[Answer], float, float]:
    """Answers, and the median seconds that decoding and the forward pass took for a picture."""
    labeler.label(pictures[:1])  # the first call compiles, and is no measure of the others
    labeler.label(pictures[:_LABEL_AT_ONCE])
    answers: list[Answer] = []
    decode_s, forward_s = [0.0], [0.0]
    for start in range(0, len(pictures), _LABEL_AT_ONCE):
        batch = pictures[start : start + _LABEL_AT_ONCE]
        before = dict(labeler.seconds)
        answered = labeler.label(batch)
        answers += answered
        num_seen = sum(answer.confidences is not None for answer in answered)
        decode_s.append((labeler.seconds["decode"] - before["decode"]) / len(batch))
        if num_seen == _LABEL_AT_ONCE or (num_seen and len(forward_s) == 1):
            forward_s.append((labeler.seconds["forward"] - before["forward"]) / num_seen)
    return answers, median(decode_s[1:] or [0.0]), median(forward_s[1:] or [0.0])
