"""What becomes of a picture on its way through a network: bytes, pixels or a JPEG for a GPU, outputs, an answer."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from labelmill.errors import ImageError
from labelmill.images.screen import size_for_gpu
from labelmill.images.transform import Preprocessing, evaluation_views
from labelmill.model.bundle import Bundle
from labelmill.model.engines import Outputs

__all__ = ["Answer", "ForGpu", "Picture", "answered", "decoded"]


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


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that can be shown to the networks: its pixels as each sees them, or a JPEG for the GPU to decode."""

    width_px: int
    height_px: int
    views_hwc: list[NDArray[np.uint8]] = field(default_factory=list)
    encoded: bytes | None = None


@dataclass(frozen=True, slots=True)
class ForGpu:
    """Pictures as a `Gpu` takes them: JPEGs whose bytes stand one after another in `jpegs`, and then pixels
    [B, S, S, 3], one array a network. `places` says where each of both stands among all the pictures."""

    jpegs: NDArray[np.uint8]
    sizes_bytes: list[int]
    pixels_bhwc: list[NDArray[np.uint8]]
    places: list[int]

    @classmethod
    def of(cls, pictures: Sequence[Picture], sizes_px: Sequence[int]) -> "ForGpu":
        """`sizes_px` are the sides of what each network sees."""
        encoded = [place for place, picture in enumerate(pictures) if picture.encoded is not None]
        rest = [place for place, picture in enumerate(pictures) if picture.encoded is None]
        pixels = [
            np.stack([pictures[place].views_hwc[network] for place in rest])
            if rest
            else np.empty((0, size_px, size_px, 3), np.uint8)
            for network, size_px in enumerate(sizes_px)
        ]
        jpegs = [pictures[place].encoded or b"" for place in encoded]
        return cls(np.frombuffer(b"".join(jpegs), np.uint8), list(map(len, jpegs)), pixels, encoded + rest)

    def parts(self, size: int) -> Iterator["ForGpu"]:
        """The same in batches of at most `size` pictures, JPEGs or pixels in each, with the same places."""
        count, starts = len(self.sizes_bytes), np.concatenate([[0], np.cumsum(self.sizes_bytes, dtype=np.int64)])
        none = [pixels[:0] for pixels in self.pixels_bhwc]
        for start in range(0, count, size):
            stop = min(start + size, count)
            jpegs = self.jpegs[starts[start] : starts[stop]]
            yield ForGpu(jpegs, self.sizes_bytes[start:stop], none, self.places[start:stop])
        for start in range(count, len(self.places), size):
            pixels = [pixels[start - count : start - count + size] for pixels in self.pixels_bhwc]
            yield ForGpu(self.jpegs[:0], [], pixels, self.places[start : start + size])

    def images(self) -> list[bytes]:
        """The JPEGs, one by one."""
        return (
            [one.tobytes() for one in np.split(self.jpegs, np.cumsum(self.sizes_bytes)[:-1])]
            if self.sizes_bytes
            else []
        )

    def in_place(self, outputs: Sequence[Outputs]) -> list[Outputs]:
        """What the GPU gave, with a row for each picture where it stands."""
        order = np.argsort(self.places)
        return [(logits[order], None if features is None else features[order]) for logits, features in outputs]


def decoded(
    images: Sequence[bytes],
    preprocessings: Sequence[Preprocessing],
    *,
    max_pixels: int,
    on_gpu: bool,
    spread: Callable[..., Iterable[Any]] = map,
) -> list[Picture | Answer]:
    """Each picture as the networks see it, or why they cannot. With `on_gpu` it stays a JPEG where a GPU may decode it;
    `spread` maps a function over the images, perhaps in threads."""

    def decode(image: bytes) -> Picture | Answer:
        if on_gpu and (size_px := size_for_gpu(image, preprocessings, max_pixels=max_pixels)):
            return Picture(*size_px, encoded=image)
        try:
            views, width_px, height_px = evaluation_views(image, preprocessings, max_pixels=max_pixels)
            return Picture(width_px, height_px, views)
        except ImageError as exc:
            return Answer(exc.status, str(exc))

    return list(spread(decode, images))


def answered(bundle: Bundle, pictures: Sequence[Picture | Answer], outputs: Outputs) -> list[Answer]:
    """The answers to all of them; `outputs` has a row for each that is a picture."""
    logits, features = outputs
    rows = zip(bundle.confidences(logits), logits, strict=True)
    embeddings = iter(() if features is None else features.astype(np.float16))
    answers = []
    for picture in pictures:
        if isinstance(picture, Picture):
            confidences, own_logits = next(rows)
            size_px = picture.width_px, picture.height_px
            picture = Answer("ok", None, *size_px, confidences, next(embeddings, None), own_logits)
        answers.append(picture)
    return answers
