import pytest
import yaml

from labelmill.errors import SpecError
from labelmill.spec import load_spec

BASE = {
    "kind": "train",
    "name": "digits",
    "registry": "./registry",
    "task": "multi_class",
    "data": {"images": "./train", "labels": "folders"},
}
NETWORK = {"model": {"architecture": "timm/resnet10t", "weights": "scratch"}}


@pytest.fixture
def load(tmp_path):
    def load_blocks(**blocks):
        path = tmp_path / "job.yaml"
        path.write_text(yaml.safe_dump(BASE | blocks))
        return load_spec(path, environ={}).spec

    return load_blocks


@pytest.mark.parametrize(
    ("blocks", "published"),
    [
        ({"approach": "quantize", "quantize": {"model": "a@1"}}, ("a@1",)),
        ({"approach": "prune", "prune": {"model": "a@1"}, "optimize": {"epochs": 2}}, ("a@1",)),
        ({"approach": "ensemble", "ensemble": {"models": ["a@1", "b@2"]}}, ("a@1", "b@2")),
        ({"approach": "average", "average": {"models": ["a@1", "a@2"], "recipe": "uniform"}}, ("a@1", "a@2")),
        (NETWORK | {"distill": {"teachers": ["a@3"]}}, ("a@3",)),
        (NETWORK, ()),
    ],
)
def test_what_a_model_is_made_of_is_named_in_one_place(load, blocks, published):
    assert load(**blocks).published == published


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ({"approach": "quantize"}, "quantize: required, and missing: approach quantize reads it"),
        ({}, "model: required, and missing: approach fine_tune reads it"),
        (
            NETWORK | {"approach": "quantize", "quantize": {"model": "a@1"}},
            "model: approach quantize does not read it: remove it, or set approach: fine_tune",
        ),
        (
            {"approach": "ensemble", "ensemble": {"models": ["a@1", "a@2"]}, "optimize": {"epochs": 3}},
            "optimize: approach ensemble does not read it: remove it, or set approach: fine_tune or prune",
        ),
        (
            NETWORK | {"quantize": {"model": "a@1"}},
            "quantize: approach fine_tune does not read it: remove it, or set approach: quantize",
        ),
        (
            {"approach": "quantize", "quantize": {"model": "a@current"}},
            "quantize.model: expected <name>@<version> with a number as version, such as digits@3, got 'a@current'",
        ),
        (
            {"approach": "ensemble", "ensemble": {"models": ["a@1"]}},
            "ensemble.models: expected two or more different models",
        ),
        (
            {"approach": "average", "average": {"models": ["a@1", "a@1"]}},
            "average.models: expected two or more different models",
        ),
        (
            {"approach": "prune", "prune": {"model": "a@1", "share": 0.95}},
            "prune.share: expected a number of at most 0.9, got 0.95",
        ),
        (NETWORK | {"distill": {"teachers": []}}, "distill.teachers: expected one or more different models"),
    ],
)
def test_what_does_not_go_together_is_refused_with_the_field_and_what_to_do(load, blocks, message):
    with pytest.raises(SpecError) as caught:
        load(**blocks)
    assert message in str(caught.value)
