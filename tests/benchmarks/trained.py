"""A network trained within the benchmark, so that its labels mean something: random weights agree on anything.

From a folder with a folder for each label; from scratch, most of it on small pictures, the end at full size. Published
as a bundle for labelmill, and saved as a state dict for the peers.
"""

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import timm
import torch
from field.pillow_torch import Network, PictureTransform
from field.trial import Card
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from labelmill.model.bundle import WEIGHTS_NAME, BundleDraft
from labelmill.model.engines.graphs import has_bfloat16
from labelmill.model.network import default_preprocessing, save_weights
from labelmill.model.registry import Registry

__all__ = ["reference_labels", "trained_network"]

_SMALL_PX = 64
_BATCH = 64
_FULL_SIZE_SHARE = 1.0
_HELD_OUT = 10  # of the training pictures, each tenth


def trained_network(folder: Path, architecture: str, train_folder: Path, epochs: int, max_pictures: int) -> Path:
    """The folder of the trained network (see `Trial.model`), made unless it is there already."""
    settings = f"{architecture}-{epochs}-{max_pictures}-{train_folder.resolve()}"
    model = folder / f"{architecture.replace('/', '-')}-{hashlib.sha256(settings.encode()).hexdigest()[:8]}"
    if (model / "card.json").is_file():
        return model
    model.mkdir(parents=True, exist_ok=True)
    started = time.monotonic()
    labels = sorted(path.name for path in train_folder.iterdir() if path.is_dir())
    if len(labels) < 2:
        raise SystemExit(f"expected a folder for each label in {train_folder}, found {len(labels)} folders")
    pixels, targets = _load(train_folder, labels, max_pictures)
    preprocessing = default_preprocessing(architecture)
    card = Card(
        architecture,
        labels,
        preprocessing.image_size_px,
        preprocessing.resize_px,
        list(preprocessing.mean),
        list(preprocessing.std),
    )
    torch.manual_seed(0)
    network = timm.create_model(architecture.removeprefix("timm/"), num_classes=len(labels))
    accuracy = _train(network, card, pixels, targets, epochs)
    torch.save(network.state_dict(), model / "network.pt")
    _publish(model, network, card, accuracy)
    training = {"accuracy_on_held_out": accuracy, "pictures": len(targets), "seconds": time.monotonic() - started}
    (model / "training.json").write_text(json.dumps(training))
    (model / "card.json").write_text(json.dumps(asdict(card)))  # last: it says that all is there
    return model


def reference_labels(model: Path, pictures: Sequence[Path]) -> dict[str, str]:
    """What Pillow, torchvision and PyTorch say of each picture: name to label."""
    card = Card.read(str(model))
    network, transform = Network(str(model), threads=torch.get_num_threads()), PictureTransform(card)
    found: dict[str, str] = {}
    for start in range(0, len(pictures), _BATCH):
        batch = pictures[start : start + _BATCH]
        labels = network(np.stack([transform(path.read_bytes()) for path in batch]))
        found |= {path.name: label for path, label in zip(batch, labels, strict=True)}
    return found


def _load(folder: Path, labels: Sequence[str], max_pictures: int) -> tuple[Tensor, Tensor]:
    """uint8 [N, 3, 64, 64] and label numbers [N]; as many of each label, in an order that mixes them."""
    files = {label: sorted(path for path in (folder / label).iterdir() if path.is_file()) for label in labels}
    each = min(max_pictures // len(labels), *(len(found) for found in files.values()))
    pixels, targets = [], []
    for index in range(each):
        for number, label in enumerate(labels):
            image = Image.open(files[label][index]).convert("RGB").resize((_SMALL_PX, _SMALL_PX), Image.BICUBIC)
            pixels.append(torch.from_numpy(np.array(image)).permute(2, 0, 1))
            targets.append(number)
    return torch.stack(pixels), torch.tensor(targets)


def _train(network: nn.Module, card: Card, pixels: Tensor, targets: Tensor, epochs: int) -> float:
    """Epochs on small pictures, then a share of one at full size. Returns the accuracy on the held-out tenth."""
    network.to(memory_format=torch.channels_last)
    held_out = torch.arange(len(targets)) // len(card.labels) % _HELD_OUT == 0
    normalize = _Normalize(card)
    pixels_left, targets_left = pixels[~held_out], targets[~held_out]
    at_full_size = max(_BATCH, int(_FULL_SIZE_SHARE * len(targets_left)))
    steps = epochs * (len(targets_left) // _BATCH) + at_full_size // _BATCH
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
    network.train()
    for epoch in range(epochs + 1):
        size_px, end = (_SMALL_PX, len(targets_left)) if epoch < epochs else (card.image_size_px, at_full_size)
        for batch, wanted in _batches(pixels_left[:end], targets_left[:end]):
            with torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16()):
                loss = functional.cross_entropy(network(normalize(batch, size_px)), wanted)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"  {size_px} px: loss {loss.item():.2f}", flush=True)
    network.eval()
    with torch.inference_mode():
        batches = zip(pixels[held_out].split(_BATCH), targets[held_out].split(_BATCH), strict=True)
        right = sum(int((network(normalize(b, card.image_size_px)).argmax(1) == t).sum()) for b, t in batches)
    return right / int(held_out.sum())


class _Normalize:
    """uint8 [B, 3, S, S] to what the network takes, enlarged to a size."""

    def __init__(self, card: Card) -> None:
        self._mean, self._std = torch.tensor(card.mean).view(1, 3, 1, 1), torch.tensor(card.std).view(1, 3, 1, 1)

    def __call__(self, pixels: Tensor, size_px: int) -> Tensor:
        enlarged = functional.interpolate(pixels.float() / 255, (size_px, size_px), mode="bilinear")
        return ((enlarged - self._mean) / self._std).contiguous(memory_format=torch.channels_last)


def _batches(pixels: Tensor, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Shuffled, half of them mirrored, moved by some pixels; what does not fill a batch is left out."""
    order = torch.randperm(len(targets))
    for indices in order[: len(order) - len(order) % _BATCH].split(_BATCH):
        batch = pixels[indices]
        if torch.rand(()) < 0.5:
            batch = batch.flip(3)
        shift = tuple(int(value) for value in torch.randint(-6, 7, (2,)))
        yield batch.roll(shift, (2, 3)), targets[indices]


def _publish(model: Path, network: nn.Module, card: Card, accuracy: float) -> None:
    draft = model / "draft"
    draft.mkdir(exist_ok=True)
    save_weights(network, draft / WEIGHTS_NAME)
    Registry(str(model / "registry")).publish(
        "bench",
        BundleDraft(
            folder=draft,
            task="multi_class",
            architecture=card.architecture,
            labels=tuple(card.labels),
            preprocessing=default_preprocessing(card.architecture),
            thresholds=(),
            calibration=None,
            metrics={"accuracy": accuracy},
            data_fingerprint="0" * 64,
            spec={"kind": "train", "name": "bench"},
            library_versions={"torch": torch.__version__, "timm": timm.__version__},
        ),
    )
