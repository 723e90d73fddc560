import numpy as np
import pytest
import torch

from bundles import make_bundle
from labelmill.model.bundle import WEIGHTS_NAME
from labelmill.model.engines.torch_engine import PixelsToLogits
from labelmill.model.ensemble import Member, ensemble_architecture, ensemble_members
from labelmill.model.labeler import Labeler
from labelmill.train.approaches.ensemble import assemble
from labelmill.train.published import changed

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)


def assembled(bundles, folder):
    folder.mkdir()
    architecture, preprocessing = assemble(bundles, folder / WEIGHTS_NAME)
    return changed(bundles[0], folder, architecture=architecture, preprocessing=preprocessing, calibration=None)


def confidences(bundle, engine="torch"):
    return Labeler(bundle, engine, precision="float32", num_threads=1).confidences(PIXELS)


@pytest.mark.parametrize("task", ["multi_class", "multi_label"])
def test_an_ensemble_answers_the_mean_of_what_its_members_answer(tmp_path, task):
    cold = make_bundle(tmp_path, task=task, seed=1, calibration={"temperature": 0.4})
    warm = make_bundle(tmp_path, task=task, seed=2, architecture="timm/test_vit", calibration={"temperature": 3.0})
    both = assembled([cold, warm], tmp_path / "draft")
    assert both.architecture == "ensemble:timm/test_resnet+timm/test_vit"
    alone = [confidences(cold), confidences(warm)]
    assert np.abs(alone[0] - alone[1]).max() > 0.1  # else either alone would do
    np.testing.assert_allclose(confidences(both), np.mean(alone, axis=0), atol=1e-5)


def test_a_confidence_next_to_one_does_not_become_infinite(tmp_path):
    sure = [make_bundle(tmp_path, seed=seed, calibration={"temperature": 0.002}) for seed in (1, 2)]
    both = confidences(assembled(sure, tmp_path / "draft"))
    assert np.isfinite(both).all()
    np.testing.assert_allclose(both, np.mean([confidences(bundle) for bundle in sure], axis=0), atol=1e-5)


def test_embeddings_of_an_ensemble_are_those_of_all_its_members(tmp_path):
    bundles = [make_bundle(tmp_path, seed=1), make_bundle(tmp_path, seed=2, architecture="timm/test_vit")]
    both = assembled(bundles, tmp_path / "draft")
    lengths, features = [], []
    for bundle in (*bundles, both):
        card = bundle.architecture, len(bundle.labels), bundle.preprocessing, bundle.weights_path()
        with torch.inference_mode():
            _, found = PixelsToLogits.load(*card, embeddings=True)(torch.from_numpy(PIXELS))
        lengths.append(found.shape[1])
        features.append(found)
    assert lengths[2] == lengths[0] + lengths[1]
    torch.testing.assert_close(features[2], torch.cat(features[:2], dim=1))


def test_the_name_says_of_which_networks_it_is_made():
    members = [Member("timm/resnet18.a1_in1k", None), Member("pruned-0.3:torchvision/vgg11", 160)]
    name = ensemble_architecture(members)
    assert name == "ensemble:timm/resnet18.a1_in1k+pruned-0.3:torchvision/vgg11@160"
    assert ensemble_members(name) == members
    assert ensemble_members("timm/resnet18") == []


@pytest.mark.long
def test_members_of_other_sizes_see_the_picture_whole_in_both_engines(tmp_path):
    small = make_bundle(tmp_path, task="multi_class", seed=1)
    large = make_bundle(tmp_path, task="multi_class", seed=2, architecture="timm/test_vit", image_size_px=48)
    both = assembled([small, large], tmp_path / "draft")
    assert both.architecture == "ensemble:timm/test_resnet@32+timm/test_vit"
    squares = np.random.default_rng(3).integers(0, 256, (9, 4, 4, 3), dtype=np.uint8)
    at_48, at_32 = (squares.repeat(px // 4, axis=1).repeat(px // 4, axis=2) for px in (48, 32))
    by_torch, by_openvino = (
        Labeler(both, engine, precision="float32").confidences(at_48) for engine in ("torch", "openvino")
    )
    np.testing.assert_allclose(by_openvino, by_torch, atol=1e-3)
    alone = [
        Labeler(small, "torch", precision="float32").confidences(at_32),
        Labeler(large, "torch", precision="float32").confidences(at_48),
    ]
    np.testing.assert_allclose(by_torch, np.mean(alone, axis=0), atol=0.1)  # enlarged and reduced, nearly the same
