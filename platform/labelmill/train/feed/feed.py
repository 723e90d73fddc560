"""One worker's pictures, fetched and decoded ahead of the network.

Each worker owns a fixed share of the pictures, so what it has fetched once it can keep: encoded pictures stay in memory
up to a limit, and only decoding and augmentation happen again in every epoch.

A thread beside the network, and not a Ray Data pipeline, because an epoch of a small set is shorter than what a
pipeline needs to start. Measured on 2 busy cores, 3,200 JPEGs of 48 to 64 px for two workers, decoding alone: 2.3 s an
epoch here, 4.2 to 7.8 s through `map_batches` and `streaming_split`, whose first batch took 8 s. libjpeg-turbo and
numpy let go of the interpreter while they work. A photograph of 110 KB holds it for 0.33 ms (py-spy --gil), so threads
feed one worker 3,000 of them a second at most, however many cores it has.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import chain, count, islice, pairwise

import numpy as np
from numpy.typing import NDArray

from labelmill.ahead import ahead
from labelmill.allowance import cores_here
from labelmill.dataset import Examples
from labelmill.errors import DataError, ImageError, LabelmillError, NodeError, StorageError, UnavailableError
from labelmill.images.augment import training_pixels
from labelmill.images.transform import Preprocessing, evaluation_pixels
from labelmill.spec import TrainSpec
from labelmill.storage import read_pictures
from labelmill.train.feed.resizing import resize_by_torch
from labelmill.train.feed.resolution import training_side_px

__all__ = ["Batch", "Feed", "Share", "check_unreadable"]

Batch = tuple[NDArray[np.uint8], NDArray[np.float32]]  # pixels [B, S, S, 3], targets [B, L]
_Placed = tuple[tuple[int, bytes | StorageError], int]  # a picture's index, its bytes, and its place in the order

_NUM_BATCHES_AHEAD = 4
_NUM_FETCHED_AT_ONCE = 64
_NUM_DECODED_AT_ONCE = 4  # by a thread: each time it hands some over costs as much as a small picture
_VALIDATION_BATCH_SIZE = 64
_ALONE_CACHE_BYTES = 2**30


@dataclass(frozen=True)
class Share:
    """One worker's part of every batch: rows [start, stop) of `batch_size`, over all workers."""

    start: int
    stop: int
    batch_size: int

    @classmethod
    def of(cls, rank: int, num_workers: int, batch_size: int) -> "Share":
        return cls(batch_size * rank // num_workers, batch_size * (rank + 1) // num_workers, batch_size)

    @property
    def size(self) -> int:
        return self.stop - self.start

    def of_pictures(self, num_pictures: int, seed: int) -> NDArray[np.int64]:
        """The pictures that this worker owns: as large a part of them as of a batch."""
        order = np.random.default_rng([seed, num_pictures]).permutation(num_pictures)
        return order[num_pictures * self.start // self.batch_size : num_pictures * self.stop // self.batch_size]

    def rows(self, num_pictures: int) -> list[range]:
        """Where, among the pictures that this worker owns, those of each row of its batches stand."""
        ends = [num_pictures * row // self.batch_size for row in range(self.start, self.stop + 1)]
        return [range(start - ends[0], stop - ends[0]) for start, stop in pairwise(ends)]


class Feed:
    """Batches for one worker. `unreadable` says what was skipped so far, and why."""

    def __init__(
        self,
        spec: TrainSpec,
        preprocessing: Preprocessing,
        train: Examples,
        validation: Examples,
        *,
        share: Share,
        rows: Sequence[range],
        num_steps: int,
        num_pictures: int,
        num_threads: int,
        cache_size_bytes: int,
    ) -> None:
        self.num_steps = num_steps
        self.unreadable: dict[str, str] = {}
        self._spec = spec
        self._preprocessing = preprocessing
        self._train = train
        self._validation = validation
        self._share = share
        self._rows = rows
        self.num_pictures = num_pictures
        self.batch_size = share.batch_size
        self._num_threads = num_threads
        self._kept: dict[str, bytes] = {}
        self._has_read = False
        self._room_bytes = cache_size_bytes

    @classmethod
    def alone(cls, spec: TrainSpec, preprocessing: Preprocessing, pictures: Examples, *, num_pictures: int) -> "Feed":
        """For one process that sees the same pictures as they are (`validation_batches`) and augmented. Of
        `num_pictures` the spec's share may be unreadable."""
        share = Share.of(0, 1, min(_VALIDATION_BATCH_SIZE, len(pictures)))
        return cls(
            spec,
            preprocessing,
            pictures,
            pictures,
            share=share,
            rows=share.rows(len(pictures)),
            num_steps=-(-len(pictures) // share.batch_size),
            num_pictures=num_pictures,
            num_threads=cores_here(),
            cache_size_bytes=_ALONE_CACHE_BYTES,
        )

    def training_batches(self, epoch: int, first_step: int = 0) -> Iterator[Batch]:
        """`num_steps` full batches of this worker's share, in a new order and augmented anew for each epoch; those
        before `first_step` are left out.
        """
        skipped = first_step * self._share.size
        wanted = self.num_steps * self._share.size - skipped
        side_px = training_side_px(self._spec, self._preprocessing.image_size_px, epoch)
        preprocessing = replace(self._preprocessing, image_size_px=side_px)
        decoded = self._decoded(
            self._train,
            islice(self._endless(epoch), skipped, None),
            lambda data, place: self._augmented(data, preprocessing, epoch, skipped + place),
        )
        batches = _batches(decoded, self._train.targets, self._share.size, wanted)
        return ahead(batches, _NUM_BATCHES_AHEAD)

    def validation_batches(self) -> Iterator[Batch]:
        """This worker's validation pictures once, as they are labelled later; what cannot be read is left out."""
        order = iter(range(len(self._validation)))
        decoded = self._decoded(self._validation, order, lambda data, place: self._plain(data))
        batches = _batches(decoded, self._validation.targets, _VALIDATION_BATCH_SIZE, len(self._validation))
        return ahead(batches, _NUM_BATCHES_AHEAD)

    def _endless(self, epoch: int) -> Iterator[int]:
        """An order of this worker's pictures, again and again: full batches may want a few more than it owns."""
        order, uris = self._order(epoch), self._train.uris
        while True:
            good = [index for index in order.tolist() if uris[index].as_py() not in self.unreadable]
            if not good:
                raise DataError(
                    f"none of {len(self._train)} training pictures of this worker can be read{self._example()}"
                )
            yield from good

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """The pictures of an epoch, batch after batch.

        Each row of a batch has pictures of its own, mixed by themselves. So the batches are the same however many
        workers share them, and an epoch that other workers go on with shows no picture twice and leaves none out.
        """
        seed, first = self._spec.optimize.seed, self._share.start
        if self._train.rates is not None:
            return self._train.order(np.random.default_rng([seed, epoch, first]))
        mixed = [
            row.start + np.random.default_rng([seed, epoch, number]).permutation(len(row))
            for number, row in enumerate(self._rows, first)
        ]
        return np.stack([np.resize(row, self.num_steps) for row in mixed], axis=1).ravel()

    def _decoded(
        self, examples: Examples, order: Iterator[int], decode: Callable[[bytes, int], NDArray[np.uint8]]
    ) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """(index, pixels) of the pictures that can be read; the others are noted. `decode` gets a place in `order`."""
        places = count()

        def attempt(data: bytes | StorageError, place: int) -> NDArray[np.uint8] | LabelmillError:
            if isinstance(data, StorageError):
                return data
            try:
                return decode(data, place)
            except ImageError as exc:
                return exc

        def attempts(some: Sequence[_Placed]) -> list[tuple[int, NDArray[np.uint8] | LabelmillError]]:
            return [(index, attempt(data, place)) for (index, data), place in some]

        with ThreadPoolExecutor(self._num_threads, thread_name_prefix="decode") as pool:
            for fetched in ahead(self._fetched(examples, order), 2):
                placed = list(zip(fetched, places, strict=False))
                parts = [
                    placed[start : start + _NUM_DECODED_AT_ONCE]
                    for start in range(0, len(placed), _NUM_DECODED_AT_ONCE)
                ]
                for index, pixels in chain.from_iterable(pool.map(attempts, parts)):
                    if isinstance(pixels, LabelmillError):
                        self._note(examples.uris[index].as_py(), pixels)
                    else:
                        yield index, pixels

    def _fetched(self, examples: Examples, order: Iterator[int]) -> Iterator[list[tuple[int, bytes | StorageError]]]:
        while indices := list(islice(order, min(_NUM_FETCHED_AT_ONCE, len(examples)))):
            items = [(examples.uris[index].as_py(), examples.etags[index].as_py()) for index in indices]
            missing = [item for item in items if item[0] not in self._kept]
            read = dict(zip([uri for uri, _ in missing], read_pictures(missing), strict=True)) if missing else {}
            self._check_one_is_there(read)
            self._keep(read)
            yield [
                (index, read[uri] if uri in read else self._kept[uri])
                for index, (uri, _) in zip(indices, items, strict=True)
            ]

    def _check_one_is_there(self, read: dict[str, bytes | StorageError]) -> None:
        """NodeError: of the first pictures none is, though the process that listed them saw them all."""
        if self._has_read or not read:
            return
        reasons = [data for data in read.values() if isinstance(data, StorageError)]
        self._has_read = len(reasons) < len(read)
        if not self._has_read and not any(isinstance(reason, UnavailableError) for reason in reasons):
            raise NodeError(f"not one of {len(reasons)} pictures can be read: {reasons[0]}")

    def _keep(self, read: dict[str, bytes | StorageError]) -> None:
        for uri, data in read.items():
            # Once full it stays as it is: every epoch wants each picture once, so making room would only lose others.
            if isinstance(data, bytes) and len(data) <= self._room_bytes:
                self._kept[uri] = data
                self._room_bytes -= len(data)

    def _note(self, uri: str, error: LabelmillError) -> None:
        if isinstance(error, UnavailableError):
            raise error  # the store is down: that says nothing about the picture
        self.unreadable[uri] = str(error)
        check_unreadable(self._spec, self.unreadable, self.num_pictures)

    def _example(self) -> str:
        return f": {next(iter(self.unreadable.values()))}" if self.unreadable else "."

    def _augmented(self, data: bytes, preprocessing: Preprocessing, epoch: int, place: int) -> NDArray[np.uint8]:
        spec = self._spec
        step, row = divmod(place, self._share.size)
        rng = np.random.default_rng([spec.optimize.seed, epoch, step, self._share.start + row])
        return training_pixels(
            data, preprocessing, spec.augment, rng=rng, max_pixels=spec.max_pixels, resize=resize_by_torch
        )

    def _plain(self, data: bytes) -> NDArray[np.uint8]:
        return evaluation_pixels(data, self._preprocessing, max_pixels=self._spec.max_pixels)[0]


def check_unreadable(spec: TrainSpec, unreadable: Mapping[str, str], num_pictures: int) -> None:
    """DataError when more than `max_unreadable_rate` of the pictures to train and validate cannot be read."""
    if len(unreadable) <= spec.max_unreadable_rate * num_pictures:
        return
    examples = [f"{uri}: {reason}" for uri, reason in list(unreadable.items())[:5]]
    raise DataError(
        f"at least {len(unreadable)} of {num_pictures} pictures cannot be read, and max_unreadable_rate allows "
        f"{spec.max_unreadable_rate:g}. Repair or remove them, or raise max_unreadable_rate. The first:",
        *examples,
    )


def _batches(
    decoded: Iterator[tuple[int, NDArray[np.uint8]]], targets: NDArray[np.uint8], size: int, num_pictures: int
) -> Iterator[Batch]:
    for start in range(0, num_pictures, size):
        wanted = min(size, num_pictures - start)
        pixels: NDArray[np.uint8] | None = None
        indices: list[int] = []
        for index, picture_hwc in islice(decoded, wanted):
            # One by one, while they are in the cache: a batch of photographs is larger than that.
            pixels = np.empty((wanted, *picture_hwc.shape), dtype=np.uint8) if pixels is None else pixels
            pixels[len(indices)] = picture_hwc
            indices.append(index)
        if pixels is None:
            return
        yield pixels[: len(indices)], targets[indices].astype(np.float32)
