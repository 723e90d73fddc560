from pathlib import Path

import pytest

from labelmill.errors import SpecError
from labelmill.spec import load_spec
from labelmill.spec.train.augment import PRESETS, Augment

TRAIN = """\
kind: train
name: digits
registry: ./registry
task: multi_label
data: {images: ./train, labels: ./train.csv}
model: {architecture: timm/resnet10t, weights: scratch}
optimize: {epochs: 2}
"""


@pytest.fixture
def augment_of(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("job.yaml").write_text(TRAIN)

    def load(*overrides: str) -> Augment:
        return load_spec("job.yaml", overrides, {}).spec.augment

    return load


def test_a_preset_sets_what_it_says_and_a_field_beside_it_wins(augment_of):
    assert augment_of() == augment_of("augment.preset=light") == Augment()
    heavy = augment_of("augment.preset=heavy")
    assert (heavy.policy, heavy.mixup, heavy.cutmix, heavy.crop_scale) == ("trivial_augment", 0.2, 1.0, (0.2, 1.0))
    changed = augment_of("augment.preset=heavy", "augment.flip=none", "augment.cutmix=0")
    assert (changed.flip, changed.cutmix, changed.policy) == ("none", 0, "trivial_augment")


def test_what_the_description_says_of_the_presets_is_so():
    described = Augment.model_fields["preset"].description
    assert described is not None
    for preset, fields in PRESETS.items():
        words = described.partition(f"{preset}:")[2].partition(". ")[0]
        numbers = {
            f"{value:g}" for value in (*fields.values(), *fields.get("colour", {}).values()) if type(value) is float
        }
        numbers.add(f"{Augment(preset=preset).crop_scale[0]:g}")
        assert all(number in words for number in numbers), (preset, numbers, words)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("augment.preset=medum", "expected light, medium or heavy, got 'medum': did you mean medium?"),
        ("augment.policy=trivial", "did you mean trivial_augment?"),
        ("augment.magnitude=5", "only policy rand_augment has it, and policy is none"),
        ("augment.num_operations=3", "only policy rand_augment has it, and policy is none"),
        ("augment.colour={hue: 0.7}", "expected a number of at most 0.5, got 0.7"),
        ("augment.color={hue: 0.1}", "did you mean colour?"),
        ("augment.erase=2", "expected a number of at most 1, got 2"),
        ("augment.start_size=0", "expected a number of at least 0.25, got 0"),
        ("augment=heavy", "expected a mapping of fields, got 'heavy'"),
        ("augment.preset=[heavy]", "got a list of 1"),
    ],
)
def test_what_does_not_go_together_is_one_clear_line(augment_of, change, message):
    with pytest.raises(SpecError) as caught:
        augment_of(change)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_pictures_cannot_grow_within_one_epoch(augment_of):
    with pytest.raises(SpecError, match=r"augment.start_size: expected 1 where optimize.epochs is 1"):
        augment_of("augment.start_size=0.5", "optimize.epochs=1", "optimize.warmup_epochs=0")
