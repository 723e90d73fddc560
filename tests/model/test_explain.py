"""Heat maps, checked against what is known by other means: class activation maps, the network's own answers, and
pictures in which one place decides."""

import numpy as np
import pytest
import torch
from torch import nn

from bundles import make_bundle, make_draft
from labelmill.errors import BundleError, UnreadableError
from labelmill.images.transform import evaluation_pixels
from labelmill.model.bundle import WEIGHTS_NAME, Bundle
from labelmill.model.engines.torch_engine import PixelsToLogits
from labelmill.model.explain import Explainer, explain
from labelmill.model.labeler import Labeler
from labelmill.model.network import save_weights
from labelmill.model.registry import Registry
from pictures import encoded, jpeg_bytes

SIZE_PX = 64
SQUARE_PX = 16


def network_of(bundle) -> nn.Module:
    weights = bundle.weights_path()
    return PixelsToLogits.load(bundle.architecture, len(bundle.labels), bundle.preprocessing, weights)


def test_a_heat_map_of_pooled_features_is_their_class_activation_map(tiny_registry):
    """Where a linear head stands on the mean of a map, Grad-CAM is CAM (Zhou et al. 2016): the head times the map."""
    bundle = make_bundle(tiny_registry, "wide", image_size_px=128, seed=3)
    data = jpeg_bytes(150, 130, seed=5)
    pixels_hwc, _, _ = evaluation_pixels(data, bundle.preprocessing)
    module, seen = network_of(bundle), []
    module.network.layer4.register_forward_hook(lambda *arguments: seen.append(arguments[2][0].detach()))
    module(torch.from_numpy(pixels_hwc)[None])
    assert seen[0].shape[-1] == 4
    found = Explainer(bundle)
    for label, weights in zip(bundle.labels, module.network.fc.weight, strict=True):
        expected = torch.einsum("c,chw->hw", weights.detach(), seen[0]).relu()
        expected = nn.functional.interpolate(expected[None, None], (128, 128), mode="bilinear")[0, 0]
        heat_hw = found.explain(data, label).heat_hw
        assert heat_hw.shape == (128, 128)
        np.testing.assert_allclose(heat_hw, (expected / expected.max().clamp(min=1e-12)).numpy(), atol=1e-5)
    assert heat_hw.max() == pytest.approx(1)


@pytest.mark.parametrize("architecture", ["timm/test_vit", "torchvision/vit_b_32"])
def test_attention_in_steps_gives_the_answers_of_fused_attention(tiny_registry, architecture):
    bundle = make_bundle(tiny_registry, "tokens", architecture=architecture, image_size_px=64)
    pixels_hwc, _, _ = evaluation_pixels(jpeg_bytes(70, 90, seed=2), bundle.preprocessing)
    explainer = Explainer(bundle)
    with explainer._trace as trace:
        in_steps = explainer._module(torch.from_numpy(pixels_hwc)[None]).detach().numpy()
        attentions = [attention.detach() for attention in trace.attentions]
    fused = Labeler(bundle, "torch", precision="float32")._engine.forward(pixels_hwc[None])[0]
    np.testing.assert_allclose(in_steps, fused, atol=1e-4)
    assert len(attentions) == {"timm/test_vit": 6, "torchvision/vit_b_32": 12}[architecture]
    for attention in attentions:
        torch.testing.assert_close(attention.sum(dim=-1), torch.ones(attention.shape[:-1]))


def squares(count: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noise with a square somewhere, red or blue: pixels [count, S, S, 3], 1 for red, left and top of the square."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(90, 160, (count, SIZE_PX, SIZE_PX, 3), dtype=np.uint8)
    red = rng.integers(0, 2, count)
    places = rng.integers(0, SIZE_PX - SQUARE_PX, (count, 2))
    for picture, is_red, (x, y) in zip(pixels, red, places, strict=True):
        picture[y : y + SQUARE_PX, x : x + SQUARE_PX] = (230, 30, 30) if is_red else (30, 30, 230)
    return pixels, red, places


def learn_squares(folder, architecture: str, steps: int) -> Bundle:
    """A model that tells red squares from blue ones."""
    draft = make_draft(folder / "draft", "multi_class", ("blue", "red"), 0, architecture, SIZE_PX)
    path = draft.folder / WEIGHTS_NAME
    module = PixelsToLogits.load(architecture, 2, draft.preprocessing, path).train()
    optimizer = torch.optim.AdamW(module.parameters(), lr=2e-3)
    for step in range(steps):
        pixels, red, _ = squares(32, seed=step)
        loss = nn.functional.cross_entropy(module(torch.from_numpy(pixels)), torch.from_numpy(red))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    save_weights(module.network, path)
    return Registry(str(folder / "registry")).publish("squares", draft)


@pytest.mark.long
@pytest.mark.parametrize(("architecture", "steps"), [("timm/test_resnet", 60), ("timm/test_vit", 200)])
def test_the_heat_lies_where_the_label_is(tmp_path, architecture, steps):
    bundle = learn_squares(tmp_path, architecture, steps)
    pixels, red, places = squares(32, seed=10_000)
    assert (Labeler(bundle).confidences(pixels).argmax(axis=1) == red).mean() > 0.95
    explainer, shares = Explainer(bundle), []
    for picture, is_red, (x, y) in zip(pixels, red, places, strict=True):
        heat_hw = explainer.explain(encoded(picture, "PNG"), bundle.labels[is_red]).heat_hw
        near = slice(max(0, y - 8), y + SQUARE_PX + 8), slice(max(0, x - 8), x + SQUARE_PX + 8)
        shares.append(float(heat_hw[near].sum() / max(heat_hw.sum(), 1e-9)))
    by_chance = (SQUARE_PX + 16) ** 2 / SIZE_PX**2
    assert np.median(shares) > 2 * by_chance, shares


def test_what_cannot_be_explained_is_said(tiny_bundle):
    with pytest.raises(BundleError, match=r"has no label 'cow'; it has cat, dog, eel"):
        explain(tiny_bundle, jpeg_bytes(), "cow")
    with pytest.raises(UnreadableError):
        explain(tiny_bundle, jpeg_bytes()[:60], "cat")


FAMILIES = [
    ("torchvision/alexnet", 96, "Grad-CAM"),
    ("torchvision/vgg11", 64, "Grad-CAM"),
    ("torchvision/resnet18", 32, "Grad-CAM"),
    ("torchvision/inception_v3", 96, "Grad-CAM"),
    ("torchvision/googlenet", 64, "Grad-CAM"),
    ("timm/test_efficientnet", 64, "Grad-CAM"),
    ("torchvision/mobilenet_v2", 64, "Grad-CAM"),
    ("timm/mobilenetv3_small_050", 64, "Grad-CAM"),
    ("torchvision/squeezenet1_1", 96, "Grad-CAM"),
    ("timm/test_convnext", 64, "Grad-CAM"),
    ("timm/swin_tiny_patch4_window7_224", 224, "Grad-CAM"),
    ("torchvision/swin_t", 96, "Grad-CAM"),
    ("timm/test_maxvit", 64, "Grad-CAM"),
    ("timm/mixer_s32_224", 224, "Grad-CAM"),
    ("timm/deit_tiny_patch16_224", 96, "attention roll-out"),
    ("timm/deit_tiny_distilled_patch16_224", 96, "attention roll-out"),
    ("timm/beit_base_patch16_224", 64, "attention roll-out"),
]


@pytest.mark.long
@pytest.mark.parametrize(("architecture", "image_size_px", "method"), FAMILIES)
def test_every_family_is_explained_by_the_method_that_fits_it(tmp_path, architecture, image_size_px, method):
    bundle = make_bundle(str(tmp_path), architecture=architecture, image_size_px=image_size_px)
    found = [explain(bundle, jpeg_bytes(120, 100, seed=seed), "dog") for seed in (1, 2)]
    for explanation in found:
        heat_hw = explanation.heat_hw
        assert explanation.method == method
        assert heat_hw.shape == (image_size_px, image_size_px)
        assert heat_hw.min() >= 0 and heat_hw.max() in (0, pytest.approx(1))
    assert any(heat.heat_hw.std() > 0.01 for heat in found), "a heat map that is the same everywhere"
