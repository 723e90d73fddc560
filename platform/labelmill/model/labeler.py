"""Image bytes to answers: the one inference path. Bulk labelling, the endpoint and evaluation all come through here."""

import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import cast

import numpy as np
from numpy.typing import NDArray

from labelmill.errors import ImageError
from labelmill.images.decode import MAX_PIXELS
from labelmill.images.screen import size_for_gpu
from labelmill.images.transform import evaluation_views
from labelmill.model.bundle import Bundle
from labelmill.model.engines import Engine, EngineName, Gpu, Outputs, PrecisionName, load_engine

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

    def _answers(self, decoded: Sequence["_Picture | Answer"], outputs: Outputs) -> list[Answer]:
        """`outputs` has a row for each picture in `decoded`."""
        logits, features = outputs
        rows = zip(self.bundle.confidences(logits), logits, strict=True)
        embeddings = iter(() if features is None else features.astype(np.float16))
        answers = []
        for picture in decoded:
            if isinstance(picture, _Picture):
                confidences, own_logits = next(rows)
                size_px = picture.width_px, picture.height_px
                picture = Answer("ok", None, *size_px, confidences, next(embeddings, None), own_logits)
            answers.append(picture)
        return answers


def label_together(
    labelers: Sequence[Labeler], images: Sequence[bytes], *, on_cores: bool = False
) -> list[list[Answer]]:
    """Each labeler's answers to the same pictures, which are decoded once: [labelers][images]. What a labeler answers
    is what it would answer alone. Batch size, limit and decoding threads are those of the first. With `on_cores` no
    picture is decoded on a GPU.
    """
    first, gpu = labelers[0], labelers[0]._engine.gpu
    if any(labeler._engine.gpu is not gpu for labeler in labelers):  # each decodes for itself alone
        return [label_together([labeler], images, on_cores=on_cores)[0] for labeler in labelers]
    on_gpu = gpu is not None and gpu.decodes and not on_cores
    answers = [list[Answer]() for _ in labelers]
    for start in range(0, len(images), first._batch_size):
        decoded = _decode_batch(labelers, images[start : start + first._batch_size], on_gpu=on_gpu)
        pictures = [picture for picture in decoded if isinstance(picture, _Picture)]
        outputs = _forward(labelers, pictures) if pictures else None
        if pictures and outputs is None:
            decoded = _decode_batch(labelers, images[start : start + first._batch_size], on_gpu=False)
            pictures = [picture for picture in decoded if isinstance(picture, _Picture)]
            outputs = _forward(labelers, pictures) if pictures else None
        for model, (labeler, found) in enumerate(zip(labelers, answers, strict=True)):
            found += labeler._answers(decoded, outputs[model]) if outputs else cast(list[Answer], decoded)
    return answers


def _decode_batch(labelers: Sequence[Labeler], images: Sequence[bytes], *, on_gpu: bool) -> list["_Picture | Answer"]:
    first, preprocessings = labelers[0], [labeler.bundle.preprocessing for labeler in labelers]

    def decode(image: bytes) -> _Picture | Answer:
        if on_gpu and (size_px := size_for_gpu(image, preprocessings, max_pixels=first._max_pixels)):
            return _Picture(*size_px, encoded=image)
        try:
            views, width_px, height_px = evaluation_views(image, preprocessings, max_pixels=first._max_pixels)
            return _Picture(width_px, height_px, views)
        except ImageError as exc:
            return Answer(exc.status, str(exc))

    started = time.perf_counter()
    spread: Callable[..., Iterable[_Picture | Answer]] = first._pool.map if first._pool else map
    decoded = list(spread(decode, images))
    first.seconds["decode"] += time.perf_counter() - started
    return decoded


def _forward(labelers: Sequence[Labeler], pictures: Sequence["_Picture"]) -> list[Outputs] | None:
    """Of each labeler, a row for each picture; None where the GPU cannot decode one that it was left."""
    first, gpu = labelers[0], labelers[0]._engine.gpu
    started = time.perf_counter()
    if gpu is None:
        outputs: list[Outputs] | None = [
            labeler._engine.forward(np.stack([picture.views_hwc[view] for picture in pictures]))
            for view, labeler in enumerate(labelers)
        ]
    else:
        outputs = _forward_on(gpu, labelers, pictures)
    first.seconds["forward"] += time.perf_counter() - started
    return outputs


def _forward_on(gpu: Gpu, labelers: Sequence[Labeler], pictures: Sequence["_Picture"]) -> list[Outputs] | None:
    encoded = [row for row, picture in enumerate(pictures) if picture.encoded is not None]
    decoded = [row for row, picture in enumerate(pictures) if picture.encoded is None]
    sizes_px = [labeler.bundle.preprocessing.image_size_px for labeler in labelers]
    pixels = [
        np.stack([pictures[row].views_hwc[view] for row in decoded])
        if decoded
        else np.empty((0, size_px, size_px, 3), np.uint8)
        for view, size_px in enumerate(sizes_px)
    ]
    jpegs = [pictures[row].encoded or b"" for row in encoded]
    joined = np.frombuffer(b"".join(jpegs), dtype=np.uint8)
    outputs = gpu.forward(joined, [len(jpeg) for jpeg in jpegs], pixels)
    if outputs is None:
        return None
    places = np.argsort(encoded + decoded)  # the encoded came first
    return [(logits[places], None if features is None else features[places]) for logits, features in outputs]


@dataclass(frozen=True, slots=True)
class _Picture:
    """A picture that can be shown to the networks: its pixels as each sees them, or a JPEG for the GPU to decode."""

    width_px: int
    height_px: int
    views_hwc: list[NDArray[np.uint8]] = field(default_factory=list)
    encoded: bytes | None = None
