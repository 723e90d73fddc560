"""Published bundles that know the shapes a little, trained here without Ray."""

import shutil
from pathlib import Path

import torch

from bundles import make_draft
from labelmill.model.bundle import WEIGHTS_NAME, Bundle
from labelmill.model.network import save_weights
from labelmill.model.registry import Registry
from labelmill.train.loop.loop import train
from train.runs import shapes_spec, started
from train.shapes import LABELS


def trained_bundle(
    folder: Path,
    *,
    epochs: int = 4,
    architecture: str = "timm/resnet10t",
    image_size_px: int = 32,
    weights: str = "scratch",
    seed: int = 0,
    name: str = "shapes",
) -> Bundle:
    """Train on the shapes of `folder` and publish, in this process on one thread."""
    spec = shapes_spec(
        folder,
        num_pictures=240,
        model={"architecture": architecture, "weights": weights, "image_size_px": image_size_px},
        optimize={"epochs": epochs, "batch_size": 16, "learning_rate": 2e-3, "seed": seed},
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    course, state = started(spec)
    train(course, state, lambda state: None)
    torch.set_num_threads(threads)
    draft = make_draft(folder / "draft", labels=LABELS, architecture=architecture, image_size_px=image_size_px)
    save_weights(state.network, draft.folder / WEIGHTS_NAME)
    bundle = Registry(spec.registry).publish(name, draft)
    shutil.rmtree(draft.folder)
    return bundle
