"""A few pictures of every label and of every failure, for a person to look at: chosen by the workers, shown by the
receipt.

A sample's rank is a hash of its uri, and of each group those with the lowest ranks stay: a fair draw, which every
worker can make for itself and the driver can join, and which is the same in every run over the same pictures.
"""

from __future__ import annotations

import base64
import hashlib
import io
import time
from bisect import insort
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from labelmill.errors import ImageError
from labelmill.images.decode import decode
from labelmill.label.work.fetch import Fetched
from labelmill.model.labeler import Answer

__all__ = ["Sample", "Sampler"]

MAX_THUMBNAIL_BYTES = 8192
_SIDE_PX = 160
_MAX_CHUNK_SAMPLES = 8
_MAX_PIXELS = 40_000_000  # to decode a larger one once more takes longer than a look at it is worth
# Of a worker's time that thumbnails may take: for labels that have too few yet, and for a fair draw among all.
_SHARE_TO_FILL, _SHARE_TO_REPLACE = 0.02, 0.005
_FIRST_FREE = 16  # so that a short run has pictures too
_MAX_TEXT, _MAX_URI, _MAX_LABELS = 300, 1024, 5


@dataclass(frozen=True)
class Sample:
    """One picture as the receipt shows it: at most some 20 KB, whatever came from outside."""

    uri: str
    rank: int
    group: str  # the label for whose sake it was taken, "" for none; with a status other than ok: the status
    status: str
    error: str | None
    labels: list[tuple[str, float]]
    width_px: int | None
    height_px: int | None
    thumbnail: str | None  # base64 of a JPEG of at most MAX_THUMBNAIL_BYTES


class Sampler:
    """In a worker: looks at every picture that passes and keeps a few. `per_group` of 0 keeps failures only."""

    def __init__(self, per_group: int, now: Callable[[], float] = time.perf_counter) -> None:
        self._per_group, self._now = per_group, now
        self._lowest: dict[tuple[str, str], list[int]] = defaultdict(list)
        self._taken: list[Sample] = []
        self._made, self._spent_s, self._started = 0, 0.0, now()

    def offer(
        self,
        uris: Sequence[str],
        answers: Sequence[Answer],
        decided: Sequence[Sequence[tuple[str, float]]],
        read: Callable[[int], Fetched],
    ) -> None:
        """Pictures that were labelled just now; `read` gives the bytes of the one in that place, if it is chosen."""
        for place, (uri, answer, labels) in enumerate(zip(uris, answers, decided, strict=True)):
            if len(self._taken) >= _MAX_CHUNK_SAMPLES:
                return
            rank = _rank(uri)
            group = self._group_that_wants(rank, answer, labels)
            if group is not None:
                self._take(uri, rank, group, answer, labels, lambda place=place: read(place))  # type: ignore[misc]

    def hand_over(self) -> list[Sample]:
        """What was kept since the last call."""
        taken, self._taken = self._taken, []
        return taken

    def _group_that_wants(self, rank: int, answer: Answer, labels: Sequence[tuple[str, float]]) -> str | None:
        if answer.status != "ok":
            return answer.status if self._wants(answer.status, answer.status, rank, max(1, self._per_group)) else None
        if not self._per_group:
            return None
        names = [label for label, _ in labels] or [""]
        share = self._spent_s / max(self._now() - self._started, 1e-9) if self._made >= _FIRST_FREE else 0.0
        return next((name for name in names if self._wants("ok", name, rank, self._per_group, share)), None)

    def _wants(self, status: str, name: str, rank: int, count: int, share: float = 0.0) -> bool:
        lowest = self._lowest[status, name]
        if len(lowest) < count:
            return share < _SHARE_TO_FILL
        return rank < lowest[-1] and share < _SHARE_TO_REPLACE

    def _take(
        self,
        uri: str,
        rank: int,
        group: str,
        answer: Answer,
        labels: Sequence[tuple[str, float]],
        read: Callable[[], Fetched],
    ) -> None:
        lowest = self._lowest[answer.status, group]
        insort(lowest, rank)
        del lowest[max(1, self._per_group) :]
        started = self._now()
        thumbnail = _thumbnail(read, answer) if answer.status == "ok" else None
        self._spent_s += self._now() - started
        self._made += 1
        self._taken.append(
            Sample(
                uri=uri[-_MAX_URI:],
                rank=rank,
                group=group[:_MAX_TEXT],
                status=answer.status,
                error=answer.error[:_MAX_TEXT] if answer.error else None,
                labels=[(label[:_MAX_TEXT], round(confidence, 4)) for label, confidence in labels[:_MAX_LABELS]],
                width_px=answer.width_px,
                height_px=answer.height_px,
                thumbnail=thumbnail,
            )
        )


def _rank(uri: str) -> int:
    return int.from_bytes(hashlib.blake2b(uri.encode(), digest_size=6).digest())


def _thumbnail(read: Callable[[], Fetched], answer: Answer) -> str | None:
    if (answer.width_px or 0) * (answer.height_px or 0) > _MAX_PIXELS:
        return None
    data = read()
    if not isinstance(data, bytes):
        return None
    try:
        pixels_hwc = decode(data, min_side_px=_SIDE_PX).pixels_hwc
    except ImageError:
        return None
    picture = Image.fromarray(pixels_hwc)
    picture.thumbnail((_SIDE_PX, _SIDE_PX))
    for quality in (70, 30):
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality)
        if buffer.tell() <= MAX_THUMBNAIL_BYTES:
            return base64.b64encode(buffer.getvalue()).decode()
    return None
