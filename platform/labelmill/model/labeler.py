"""Image bytes to answers: the one inference path. Bulk labelling, the endpoint and evaluation all come through here."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast

import numpy as np
from numpy.typing import NDArray

from labelmill.images.decode import MAX_PIXELS
from labelmill.model.answers import Answer, ForGpu, Picture, answered, decoded
from labelmill.model.bundle import Bundle
from labelmill.model.engines import Engine, EngineName, Outputs, PrecisionName, load_engine

__all__ = ["Answer", "Labeler", "label_together"]


class Labeler:
    """A bundle, loaded. Call it from one thread at a time; a machine is filled with one labeler a core (num_threads=1).

    Pictures are decoded in the calling thread, or in `decode_threads` threads beside it; some of them on the GPU, where
    the engine has one. `max_pixels` bounds what a picture may claim to hold, before it is decoded. `engine` may also be
    an engine that is loaded.
    """

    def __init__(
        self,
        bundle: Bundle,
        engine: EngineName | Engine = "auto",
        *,
        precision: PrecisionName = "auto",
        num_threads: int | None = None,
        max_pixels: int = MAX_PIXELS,
        batch_size: int = 32,
        decode_threads: int = 0,
        embeddings: bool = False,
    ) -> None:
        self.bundle = bundle
        if isinstance(engine, str):
            engine = load_engine(bundle, engine, precision=precision, num_threads=num_threads, embeddings=embeddings)
        self._engine: Engine = engine
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


def label_together(labelers: Sequence[Labeler], images: Sequence[bytes]) -> list[list[Answer]]:
    """Each labeler's answers to the same pictures, which are decoded once: [labelers][images]. What a labeler answers
    is what it would answer alone. Batch size, limit and decoding threads are those of the first.
    """
    first, gpu = labelers[0], labelers[0]._engine.gpu
    if any(labeler._engine.gpu is not gpu for labeler in labelers):  # each decodes for itself alone
        return [label_together([labeler], images)[0] for labeler in labelers]
    on_gpu = gpu is not None and gpu.decodes
    answers = [list[Answer]() for _ in labelers]
    for start in range(0, len(images), first._batch_size):
        batch = _decode_batch(labelers, images[start : start + first._batch_size], on_gpu=on_gpu)
        outputs = _forward(labelers, _pictures(batch))
        if outputs is None:
            batch = _decode_batch(labelers, images[start : start + first._batch_size], on_gpu=False)
            outputs = _forward(labelers, _pictures(batch))
        for model, (labeler, found) in enumerate(zip(labelers, answers, strict=True)):
            found += answered(labeler.bundle, batch, outputs[model]) if outputs else cast(list[Answer], batch)
    return answers


def _decode_batch(labelers: Sequence[Labeler], images: Sequence[bytes], *, on_gpu: bool) -> list[Picture | Answer]:
    first, preprocessings = labelers[0], [labeler.bundle.preprocessing for labeler in labelers]
    started = time.perf_counter()
    spread = first._pool.map if first._pool else map
    found = decoded(images, preprocessings, max_pixels=first._max_pixels, on_gpu=on_gpu, spread=spread)
    first.seconds["decode"] += time.perf_counter() - started
    return found


def _pictures(batch: Sequence[Picture | Answer]) -> list[Picture]:
    return [picture for picture in batch if isinstance(picture, Picture)]


def _forward(labelers: Sequence[Labeler], pictures: Sequence[Picture]) -> list[Outputs] | None:
    """Of each labeler, a row for each picture, nothing where there is none; None where the GPU cannot decode one that
    it was left."""
    if not pictures:
        return []
    first, gpu = labelers[0], labelers[0]._engine.gpu
    started = time.perf_counter()
    if gpu is None:
        outputs: list[Outputs] | None = [
            labeler._engine.forward(np.stack([picture.views_hwc[view] for picture in pictures]))
            for view, labeler in enumerate(labelers)
        ]
    else:
        batch = ForGpu.of(pictures, [labeler.bundle.preprocessing.image_size_px for labeler in labelers])
        found = gpu.forward(batch.jpegs, batch.sizes_bytes, batch.pixels_bhwc)
        outputs = found and batch.in_place(found)
    first.seconds["forward"] += time.perf_counter() - started
    return outputs
