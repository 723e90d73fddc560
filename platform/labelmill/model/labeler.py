"""Image bytes to answers: the one inference path. Bulk labelling, the endpoint and evaluation all come through here."""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelmill.errors import ImageError
from labelmill.images.decode import MAX_PIXELS
from labelmill.images.transform import evaluation_views
from labelmill.model.bundle import Bundle
from labelmill.model.engines import EngineName, load_engine

__all__ = ["Answer", "Labeler", "label_together"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one picture. `status` is "ok", or what is wrong with it, and then `error` says it in a line.

    Width and height are as stored, after EXIF orientation; `confidences` [L] are calibrated, in the order of the
    bundle's labels, and `logits` [L] what they were made of; `embedding` [D] are the network's pooled features, where
    the labeler was asked for them. All are None unless the status is "ok".
    """

    status: str
    error: str | None
    width_px: int | None = None
    height_px: int | None = None
    confidences: NDArray[np.float32] | None = None
    embedding: NDArray[np.float16] | None = None
    logits: NDArray[np.float32] | None = None


class Labeler:
    """A bundle, loaded. Call it from one thread at a time; a machine is filled with one labeler a core (num_threads=1).

    Pictures are decoded in the calling thread, or in `decode_threads` threads beside it. `max_pixels` bounds what a
    picture may claim to hold, before it is decoded.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: EngineName = "auto",
        *,
        num_threads: int | None = None,
        max_pixels: int = MAX_PIXELS,
        batch_size: int = 32,
        decode_threads: int = 0,
        embeddings: bool = False,
    ) -> None:
        self.bundle = bundle
        self._engine = load_engine(bundle, engine, num_threads=num_threads, embeddings=embeddings)
        self._max_pixels = max_pixels
        self._batch_size = batch_size
        self._pool = ThreadPoolExecutor(decode_threads, "labelmill-decode") if decode_threads else None
        self.seconds = {"decode": 0.0, "forward": 0.0}  # of this labeler's life so far: where its time went

    def __repr__(self) -> str:
        return f"Labeler({self.bundle.reference}, {self.engine_name}, {self.precision})"

    @property
    def engine_name(self) -> str:
        return self._engine.name

    @property
    def precision(self) -> str:
        return self._engine.precision

    def label(self, images: Sequence[bytes]) -> list[Answer]:
        """An answer a picture, in their order. One that cannot be labelled is an answer too, never an exception."""
        return label_together([self], images)[0]

    def confidences(self, pixels_bhwc: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Calibrated confidences [B, L] of pixels [B, S, S, 3] as the bundle's preprocessing makes them."""
        return self.bundle.confidences(self._engine.forward(pixels_bhwc)[0])

    def _answer(self, decoded: Sequence["_Decoded | Answer"], view: int) -> list[Answer]:
        pictures = [picture for picture in decoded if isinstance(picture, _Decoded)]
        if not pictures:
            return [answer for answer in decoded if isinstance(answer, Answer)]
        started = time.perf_counter()
        logits, features = self._engine.forward(np.stack([picture.views_hwc[view] for picture in pictures]))
        rows = zip(self.bundle.confidences(logits), logits, strict=True)
        embeddings = iter(() if features is None else features.astype(np.float16))
        self.seconds["forward"] += time.perf_counter() - started
        answers = []
        for picture in decoded:
            if isinstance(picture, _Decoded):
                confidences, own_logits = next(rows)
                size_px = picture.width_px, picture.height_px
                picture = Answer("ok", None, *size_px, confidences, next(embeddings, None), own_logits)
            answers.append(picture)
        return answers


def label_together(labelers: Sequence[Labeler], images: Sequence[bytes]) -> list[list[Answer]]:
    """Each labeler's answers to the same pictures, which are decoded once: [labelers][images]. What a labeler answers
    is what it would answer alone. Batch size, limit and decoding threads are those of the first.
    """
    first, answers = labelers[0], [list[Answer]() for _ in labelers]
    for start in range(0, len(images), first._batch_size):
        decoded = _decode_batch(labelers, images[start : start + first._batch_size])
        for view, (labeler, found) in enumerate(zip(labelers, answers, strict=True)):
            found += labeler._answer(decoded, view)
    return answers


def _decode_batch(labelers: Sequence[Labeler], images: Sequence[bytes]) -> list["_Decoded | Answer"]:
    first, preprocessings = labelers[0], [labeler.bundle.preprocessing for labeler in labelers]

    def decode(image: bytes) -> _Decoded | Answer:
        try:
            return _Decoded(*evaluation_views(image, preprocessings, max_pixels=first._max_pixels))
        except ImageError as exc:
            return Answer(exc.status, str(exc))

    started = time.perf_counter()
    spread: Callable[..., Iterable[_Decoded | Answer]] = first._pool.map if first._pool else map
    decoded = list(spread(decode, images))
    first.seconds["decode"] += time.perf_counter() - started
    return decoded


@dataclass(frozen=True, slots=True)
class _Decoded:
    views_hwc: list[NDArray[np.uint8]]  # what each labeler sees
    width_px: int
    height_px: int
