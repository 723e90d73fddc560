"""A sheet of pictures as training sees them, to look at before a run: one HTML file."""

import base64
import io
from collections.abc import Iterator, Sequence
from html import escape
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from labelmill.dataset import Examples, load_training_set
from labelmill.errors import ImageError, SpecError, StorageError
from labelmill.images.augment import training_pixels
from labelmill.images.transform import Preprocessing, evaluation_pixels
from labelmill.model.network import default_preprocessing
from labelmill.page.document import document, table
from labelmill.spec import LoadedSpec, TrainSpec
from labelmill.storage import read_pictures
from labelmill.train.loop.mixing import mixed

__all__ = ["write_preview"]

_NUM_PICTURES, _NUM_VIEWS, _NUM_MIXES = 8, 7, 3
_SHOWN_PX = 112

Pixels = NDArray[np.uint8]


def write_preview(loaded: LoadedSpec, path: Path) -> int:
    """Write the sheet to `path`; returns how many pictures it shows.

    Each of some training pictures as it is labelled, and as several epochs would see it; then such pictures mixed with
    one another, where the spec says so. One that cannot be read is shown with the reason. SpecError (not of kind
    train), DataError, StorageError.
    """
    spec = loaded.spec
    if not isinstance(spec, TrainSpec):
        raise SpecError(f"{loaded.path}: a preview shows what training sees: expected kind: train, got {spec.kind!r}")
    if spec.model is None:
        raise SpecError(f"{loaded.path}: a preview needs model, and approach {spec.approach} has none")
    training_set = load_training_set(spec)
    preprocessing = default_preprocessing(spec.model.architecture, spec.model.image_size_px)
    order = np.random.default_rng(spec.optimize.seed).permutation(len(training_set.train))
    examples = training_set.train.take(order[:_NUM_PICTURES])
    views = list(_views(spec, preprocessing, examples))
    shown = [index for index, pictures in enumerate(views) if not isinstance(pictures, str)]
    firsts = [pictures[1] for pictures in views if not isinstance(pictures, str)]
    body = [
        f"<h1>{escape(spec.name)}: what training sees</h1>",
        f"<p>{escape(_settings(spec))}</p>",
        _sheet(views, examples.targets, training_set.labels),
        *(_mixes(spec, firsts, examples.targets[shown], training_set.labels) if firsts else ()),
    ]
    try:
        path.write_text(document(f"{spec.name}: what training sees", body), "utf-8")
    except OSError as exc:
        raise StorageError(f"cannot write the preview to {path}: {exc.strerror or exc}") from exc
    return len(firsts)


def _views(spec: TrainSpec, preprocessing: Preprocessing, examples: Examples) -> Iterator[list[Pixels] | str]:
    """For each picture what evaluation sees and what training sees, or why it cannot be read."""
    items = list(zip(examples.uris.to_pylist(), examples.etags.to_pylist(), strict=True))
    for number, data in enumerate(read_pictures(items)):
        if isinstance(data, StorageError):
            yield str(data)
            continue
        generators = [np.random.default_rng([spec.optimize.seed, number, view]) for view in range(_NUM_VIEWS)]
        try:
            yield [
                evaluation_pixels(data, preprocessing, max_pixels=spec.max_pixels)[0],
                *(
                    training_pixels(data, preprocessing, spec.augment, rng=rng, max_pixels=spec.max_pixels)
                    for rng in generators
                ),
            ]
        except ImageError as exc:
            yield str(exc)


def _settings(spec: TrainSpec) -> str:
    """The augmentation as the preset and the fields beside it make it."""
    values = spec.augment.model_dump(exclude_defaults=True) or {"preset": spec.augment.preset}
    return ", ".join(f"{name} {value}" for name, value in values.items())


def _sheet(views: Sequence[list[Pixels] | str], targets: Pixels, labels: Sequence[str]) -> str:
    rows = [
        [_words(picture_targets, labels), *([escape(pictures)] if isinstance(pictures, str) else map(_image, pictures))]
        for pictures, picture_targets in zip(views, targets, strict=True)
    ]
    return table(["labels", "as labelled", *["in training"] * _NUM_VIEWS], rows)


def _mixes(spec: TrainSpec, pictures: Sequence[Pixels], targets: Pixels, labels: Sequence[str]) -> list[str]:
    if not (spec.augment.mixup or spec.augment.cutmix):
        return []
    batch = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float()
    rows = []
    for number in range(_NUM_MIXES):
        pixels, blended = mixed(batch, torch.from_numpy(targets).float(), spec.augment, (spec.optimize.seed, number))
        levels = pixels.round().byte().permute(0, 2, 3, 1).numpy()
        rows.append(
            [f"{_image(picture)} {_words(row, labels)}" for picture, row in zip(levels, blended.numpy(), strict=True)]
        )
    return ["<h2>Mixed, with the labels that the network is told</h2>", table([""] * len(pictures), rows)]


def _words(targets: NDArray[np.generic], labels: Sequence[str]) -> str:
    shares = [(label, float(share)) for label, share in zip(labels, targets, strict=True) if share > 0]
    words = [escape(label) if share == 1 else f"{escape(label)} {share:.2f}" for label, share in shares]
    return ", ".join(words) or "none"


def _image(pixels_hwc: Pixels) -> str:
    times = max(1, _SHOWN_PX // len(pixels_hwc))  # whole pixels where it is tiny: a browser would blur them
    enlarged = pixels_hwc.repeat(times, axis=0).repeat(times, axis=1)
    buffer = io.BytesIO()
    name = "JPEG" if times == 1 else "PNG"
    Image.fromarray(enlarged).save(buffer, name, quality=90)
    source = base64.b64encode(buffer.getvalue()).decode()
    return f'<img width="{_SHOWN_PX}" height="{_SHOWN_PX}" alt="" src="data:image/{name.lower()};base64,{source}">'
