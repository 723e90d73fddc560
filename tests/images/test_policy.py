"""The published policies, operation by operation against torchvision.transforms.v2."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from labelmill.images import policy
from labelmill.images.policy import OPERATIONS, apply_operation, by_policy
from labelmill.spec import Augment
from pictures import scene

PICTURE = Image.fromarray(scene(224, 224, seed=5))
GROUND = (124, 116, 104)
NAMES = {"saturation": "Color", "auto_contrast": "AutoContrast"}


def of_torchvision(name: str) -> str:
    return NAMES.get(name, "".join(word.capitalize() for word in name.split("_")))


@pytest.mark.parametrize("name", (*OPERATIONS, "invert"))
@pytest.mark.parametrize("kind", ["RandAugment", "TrivialAugmentWide"])
def test_an_operation_at_its_strongest_is_torchvisions(name, kind):
    from torchvision.transforms import v2

    bilinear = v2.InterpolationMode.BILINEAR
    theirs = getattr(v2, kind)(interpolation=bilinear)
    strongest = (policy._NARROW if kind == "RandAugment" else policy._WIDE).get(name, 0.0)
    magnitudes = None
    if name != "invert":  # AutoAugment alone has it
        magnitudes = theirs._AUGMENTATION_SPACE[of_torchvision(name)][0](31, 224, 224)
    for bin_ in (0, 11, 30):  # at 10 the threshold of solarize is 170 here and a hair less there
        magnitude = 0.0 if magnitudes is None else float(magnitudes[bin_])
        expected = theirs._apply_image_or_video_transform(
            PICTURE, of_torchvision(name), magnitude, interpolation=bilinear, fill={Image.Image: list(GROUND)}
        )
        found = apply_operation(PICTURE, name, bin_ / 30 * strongest, GROUND)
        assert np.array_equal(np.asarray(found), np.asarray(expected)), (bin_, magnitude)


def test_the_imagenet_policy_is_torchvisions():
    from torchvision.transforms import v2

    theirs = v2.AutoAugment()._policies
    ours = [tuple((of_torchvision(name), p, m) for name, p, m in lines) for lines in policy._IMAGENET]
    assert ours == [tuple((name, p, m or 0) for name, p, m in lines) for lines in theirs]


@pytest.mark.parametrize("name", ["auto_augment", "rand_augment", "trivial_augment"])
def test_a_policy_draws_the_same_again_and_different_ones_otherwise(name):
    augment = Augment(policy=name)
    seen = [
        by_policy(PICTURE, augment, GROUND, np.random.default_rng(seed)).tobytes() for seed in (*range(12), *range(12))
    ]
    assert seen[:12] == seen[12:]
    assert len(set(seen)) > 6


def test_rand_augment_does_as_many_operations_as_asked_at_the_strength_asked(monkeypatch):
    done = []

    def noted(picture, name, strength, ground):
        done.append((name, strength))
        return apply_operation(picture, name, strength, ground)

    monkeypatch.setattr(policy, "apply_operation", noted)
    picture = PICTURE.resize((32, 32))
    rng = np.random.default_rng(0)
    for _ in range(300):
        by_policy(picture, Augment(policy="rand_augment", num_operations=3, magnitude=15), GROUND, rng)
    assert len(done) == 900
    assert set(Counter(name for name, _ in done)) == set(OPERATIONS)
    assert {strength for name, strength in done if name == "rotate"} == {15.0, -15.0}
    assert {strength for name, strength in done if name == "posterize"} == {2.0}
