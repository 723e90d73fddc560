"""The work rehearsed before it is begun: a random sample of the to-do list, labelled as one worker would."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median

from labelmill.label.todo.todo import Todo
from labelmill.label.work.fetch import not_labelled, read_items
from labelmill.model.bundle import Bundle
from labelmill.model.engines import choose_engine
from labelmill.model.labeler import Answer, Labeler, label_together
from labelmill.spec import LabelSpec
from labelmill.storage import traffic

__all__ = ["SAMPLE_PICTURES", "Rehearsal", "rehearse"]

logger = logging.getLogger(__name__)

SAMPLE_PICTURES = 64
_READ_AT_ONCE = 32
_LABEL_AT_ONCE = 8


@dataclass(frozen=True)
class Rehearsal:
    """What a sample of the to-do list was like on one core: medians in bytes and in seconds a picture, but for
    `label_s`, the mean of decoding and the forward passes, by which a long run goes."""

    num_pictures: int
    statuses: dict[str, int]
    failures: list[dict[str, str]]  # status, uri, error
    engine: str
    precision: str
    size_bytes: float
    fetch_s: float  # with as many in flight as a worker has
    decode_s: float
    forward_s: float
    label_s: float
    gets_a_picture: float

    @property
    def failed(self) -> int:
        return self.num_pictures - self.statuses.get("ok", 0)

    @property
    def picture_s(self) -> float:
        """Of one worker: it fetches ahead while it decodes and labels."""
        return max(self.fetch_s, self.label_s)

    @property
    def limited_by(self) -> str:
        stages = {"fetch": self.fetch_s, "decode": self.decode_s, "forward": self.forward_s}
        if self.fetch_s < self.label_s:
            del stages["fetch"]
        return max(stages, key=lambda name: stages[name])


def rehearse(spec: LabelSpec, bundles: Sequence[Bundle], todo: Todo) -> Rehearsal:
    """Label at most 64 pictures of a to-do list that is not empty, in this process, on one core; write nothing."""
    items = todo.sample(SAMPLE_PICTURES)
    logger.info("labelling a sample of %d", items.num_rows)
    before, started = traffic(), time.perf_counter()
    fetched = [
        item
        for start in range(0, items.num_rows, _READ_AT_ONCE)
        for item in read_items(items.slice(start, _READ_AT_ONCE))
    ]
    fetch_s, gets = time.perf_counter() - started, (traffic() - before).gets
    labelers = [_labeler(spec, bundle) for bundle in bundles]
    pictures = [item for item in fetched if isinstance(item, bytes)]
    answers, decode_s, forward_s = _label(labelers, pictures)
    labelled = iter(answers)
    rows = [
        (uri, next(labelled) if isinstance(item, bytes) else not_labelled(item))
        for uri, item in zip(items["uri"].to_pylist(), fetched, strict=True)
    ]
    failed = [(uri, answer) for uri, answer in rows if answer.status != "ok"]
    return Rehearsal(
        num_pictures=items.num_rows,
        statuses=dict(Counter(answer.status for _, answer in rows).most_common()),
        failures=[{"status": answer.status, "uri": uri, "error": answer.error or ""} for uri, answer in failed],
        engine=", ".join(dict.fromkeys(labeler.engine_name for labeler in labelers)),
        precision=", ".join(dict.fromkeys(labeler.precision for labeler in labelers)),
        size_bytes=median(items["size_bytes"].drop_null().to_pylist() or [0]),
        fetch_s=fetch_s / items.num_rows,
        decode_s=median(decode_s or [0.0]),
        forward_s=median(forward_s or [0.0]),
        label_s=fmean(decode_s or [0.0]) + fmean(forward_s or [0.0]),
        gets_a_picture=gets / items.num_rows,
    )


def _labeler(spec: LabelSpec, bundle: Bundle) -> Labeler:
    """As a worker on a CPU loads it."""
    engine = choose_engine(bundle, spec.precision) if spec.engine == "auto" else spec.engine
    return Labeler(
        bundle,
        engine,
        precision=spec.precision,
        num_threads=1,
        max_pixels=spec.max_pixels,
        batch_size=_LABEL_AT_ONCE,
        embeddings=spec.embeddings,
    )


def _label(labelers: Sequence[Labeler], pictures: Sequence[bytes]) -> tuple[list[Answer], list[float], list[float]]:
    """The first labeler's answers; and by batch the seconds a picture that decoding and the forward passes took."""
    for few in (1, _LABEL_AT_ONCE):  # the first calls compile, and are no measure of the others
        label_together(labelers, pictures[:few])
    answers: list[Answer] = []
    decode_s, forward_s = list[float](), list[float]()
    for start in range(0, len(pictures), _LABEL_AT_ONCE):
        batch = pictures[start : start + _LABEL_AT_ONCE]
        before = _seconds(labelers)
        answered = label_together(labelers, batch)[0]
        answers += answered
        took = _seconds(labelers)
        num_seen = sum(answer.confidences is not None for answer in answered)
        decode_s.append((took["decode"] - before["decode"]) / len(batch))
        if num_seen == _LABEL_AT_ONCE or (num_seen and not forward_s):
            forward_s.append((took["forward"] - before["forward"]) / num_seen)
    return answers, decode_s, forward_s


def _seconds(labelers: Sequence[Labeler]) -> Counter[str]:
    return sum((Counter(labeler.seconds) for labeler in labelers), Counter())
