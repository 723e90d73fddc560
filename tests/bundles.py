"""A published bundle from scratch, the same for the same seed."""

import math
import tempfile
from pathlib import Path

import torch

from labelmill.model.bundle import WEIGHTS_NAME, Bundle, BundleDraft
from labelmill.model.network import build_network, default_preprocessing, head_of, save_weights
from labelmill.model.registry import Registry


def make_draft(
    folder,
    task="multi_label",
    labels=("cat", "dog", "eel"),
    seed=0,
    architecture="timm/test_resnet",
    image_size_px=32,
    **card,
) -> BundleDraft:
    folder = Path(folder)
    (folder / "report").mkdir(parents=True, exist_ok=True)
    (folder / "report" / "index.html").write_text("<h1>how good it is</h1>")
    torch.manual_seed(seed)
    network = build_network(architecture, len(labels), image_size_px=image_size_px)
    spread_answers(network, image_size_px)
    save_weights(network, folder / WEIGHTS_NAME)
    facts = {
        "thresholds": (0.5,) * len(labels),
        "calibration": None,
        "metrics": {"macro_f1": 0.5},
        "data_fingerprint": "0" * 64,
        "spec": {"kind": "train", "name": "tiny"},
        "library_versions": {"torch": torch.__version__},
    }
    return BundleDraft(
        folder=folder,
        task=task,
        architecture=architecture,
        labels=tuple(labels),
        preprocessing=default_preprocessing(architecture, image_size_px),
        **(facts | card),
    )


@torch.no_grad()
def spread_answers(network, image_size_px, deviation=2.0, most=math.inf):
    """Scale the last layer so that answers differ from label to label and from picture to picture: an untrained network
    says the same to everything, and no test would see one answer mistaken for another. By `most` at most, since it
    spreads the rounding as well."""
    last = head_of(network)
    pixels = torch.randn(32, 3, 4, 4).repeat_interleave(image_size_px // 4, 2).repeat_interleave(image_size_px // 4, 3)
    if not last.weight.any():  # torchvision's transformers begin with a head of zeros
        last.weight.normal_()
    logits = network.eval()(pixels)
    scale = (deviation / logits.std(dim=0).clamp(min=1e-6)).clamp(max=most)
    last.bias.copy_((last.bias - logits.mean(dim=0)) * scale)
    last.weight.mul_(scale.view(-1, *[1] * (last.weight.ndim - 1)))


def make_bundle(registry_uri, name="tiny", task="multi_label", labels=("cat", "dog", "eel"), seed=0, **draft) -> Bundle:
    """Publish a new version of `name`. `draft`: architecture, image_size_px, or any field of the card."""
    with tempfile.TemporaryDirectory() as folder:
        return Registry(str(registry_uri)).publish(name, make_draft(folder, task, labels, seed, **draft))
