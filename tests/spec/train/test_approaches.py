import pytest
from pydantic import ValidationError

from labelmill.spec import TrainSpec

BASE = {
    "kind": "train",
    "name": "n",
    "registry": "./r",
    "task": "multi_class",
    "data": {"images": "./i", "labels": "folders"},
}
PUBLISHED = {"architecture": "timm/resnet10t", "weights": "base@1"}
NIGHT = {"model": "base@1", "images": "./night"}
SCRATCH = {"architecture": "timm/resnet10t", "weights": "scratch"}


@pytest.mark.parametrize(
    "spec",
    [
        {"model": SCRATCH},
        {"model": PUBLISHED, "approach": "linear_probe", "few_shot": {"views": 0}},
        {"model": PUBLISHED | {"weights": "pretrained"}, "approach": "prototype", "augment": {"flip": "both"}},
        {"approach": "adapt", "adapt": NIGHT},
    ],
)
def test_an_approach_is_valid_with_the_blocks_it_reads(spec):
    assert TrainSpec.model_validate(BASE | spec)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"model": SCRATCH, "few_shot": {"views": 3}}, "fine_tune does not read it: .* linear_probe or prototype"),
        ({"model": PUBLISHED, "approach": "prototype", "optimize": {"epochs": 3}}, "prototype does not read it"),
        ({"model": PUBLISHED, "approach": "linear_probe", "workers": {"count": 1}}, "linear_probe does not read it"),
        ({"model": PUBLISHED, "approach": "adapt", "adapt": NIGHT}, "adapt does not read it"),
        ({"approach": "adapt"}, "required, and missing: approach adapt reads it"),
        ({"approach": "adapt", "adapt": NIGHT | {"model": "base@current"}}, "a number as version"),
        ({"approach": "linear_probe"}, "required, and missing: approach linear_probe reads it"),
        ({"model": SCRATCH, "approach": "linear_probe"}, "a network from scratch has none"),
    ],
)
def test_what_an_approach_would_ignore_or_lacks_is_refused(spec, message):
    with pytest.raises(ValidationError, match=message):
        TrainSpec.model_validate(BASE | spec)
