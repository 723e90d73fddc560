"""Image bytes to answers: the one inference path. Bulk labelling, the endpoint and evaluation all come through here."""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from labelmill.errors import ImageError
from labelmill.images.decode import MAX_PIXELS
from labelmill.images.transform import evaluation_pixels
from labelmill.model.bundle import Bundle
from labelmill.model.engines import EngineName, load_engine

__all__ = ["Answer", "Labeler"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one picture. `status` is "ok", or what is wrong with it, and then `error` says it in a line.

    Width and height are as stored, after EXIF orientation; `confidences` [L] are calibrated, in the order of the
    bundle's labels. All three are None unless the status is "ok".
    """

    status: str
    error: str | None
    width_px: int | None
    height_px: int | None
    confidences: NDArray[np.float32] | None


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
    ) -> None:
        self.bundle = bundle
        self._engine = load_engine(bundle, engine, num_threads=num_threads)
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
        return [
            answer
            for start in range(0, len(images), self._batch_size)
            for answer in self._label_batch(images[start : start + self._batch_size])
        ]

    def confidences(self, pixels_bhwc: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Calibrated confidences [B, L] of pixels [B, S, S, 3] as the bundle's preprocessing makes them."""
        logits = self._engine.logits(pixels_bhwc) / np.float32(self.bundle.temperature)
        return _softmax(logits) if self.bundle.task == "multi_class" else _sigmoid(logits)

    def _label_batch(self, images: Sequence[bytes]) -> list[Answer]:
        started = time.perf_counter()
        decode: Callable[..., Iterable[_Decoded | Answer]] = self._pool.map if self._pool else map
        decoded = list(decode(self._decode, images))
        decoded_at = time.perf_counter()
        self.seconds["decode"] += decoded_at - started
        pictures = [picture for picture in decoded if isinstance(picture, _Decoded)]
        if not pictures:
            return [answer for answer in decoded if isinstance(answer, Answer)]
        rows = iter(self.confidences(np.stack([picture.pixels_hwc for picture in pictures])))
        self.seconds["forward"] += time.perf_counter() - decoded_at
        return [
            picture
            if isinstance(picture, Answer)
            else Answer("ok", None, picture.width_px, picture.height_px, next(rows))
            for picture in decoded
        ]

    def _decode(self, image: bytes) -> "_Decoded | Answer":
        try:
            pixels, width_px, height_px = evaluation_pixels(
                image, self.bundle.preprocessing, max_pixels=self._max_pixels
            )
        except ImageError as exc:
            return Answer(exc.status, str(exc), None, None, None)
        return _Decoded(pixels, width_px, height_px)


@dataclass(frozen=True, slots=True)
class _Decoded:
    pixels_hwc: NDArray[np.uint8]
    width_px: int
    height_px: int


def _sigmoid(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    # By tanh, which does not overflow where exp(-logits) would.
    confidences: NDArray[np.float32] = np.float32(0.5) * (np.tanh(np.float32(0.5) * logits) + np.float32(1))
    return confidences


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    confidences: NDArray[np.float32] = powers / powers.sum(axis=1, keepdims=True)
    return confidences
