"""A search is refused before it starts when one of its trials could not."""

import math
from collections import Counter
from pathlib import Path

import pytest

from labelmill.errors import SpecError
from labelmill.spec import TrainSpec, load_spec, trial_specs

TRAIN = """\
kind: train
name: digits
registry: ./registry
task: multi_label
data: {images: ./pictures, labels: ./labels.csv}
model: {architecture: timm/resnet10t, weights: scratch}
optimize: {epochs: 4, learning_rate: 0.3}
"""
RATE = "optimize.learning_rate: {min: 1.0e-5, max: 1.0e-1, scale: log}"


def load(folder: Path, *lines: str) -> TrainSpec:
    path = folder / "train.yaml"
    path.write_text("\n".join([TRAIN, *lines]))
    spec = load_spec(path).spec
    assert isinstance(spec, TrainSpec)
    return spec


def test_trials_begin_with_the_spec_as_written_and_then_cover_the_ranges(tmp_path: Path):
    spec = load(tmp_path, f"tune: {{trials: 65, search: {{{RATE}, optimize.batch_size: [16, 32, 64, 128]}}}}")
    values, specs = zip(*trial_specs(spec), strict=True)
    assert values[0] == {"optimize.learning_rate": 0.3, "optimize.batch_size": 64}
    assert specs[0] == spec.model_copy(update={"tune": None})
    assert [each.optimize.learning_rate for each in specs[1:]] == [one["optimize.learning_rate"] for one in values[1:]]
    assert all(each.optimize.epochs == 4 and each.tune is None for each in specs)
    decades = Counter(math.floor(math.log10(one["optimize.learning_rate"])) for one in values[1:])
    assert set(decades) == {-5, -4, -3, -2}
    assert min(decades.values()) >= 15  # 16 each, were 64 trials spread exactly
    sizes = Counter(each.optimize.batch_size for each in specs[1:])
    assert set(sizes) == {16, 32, 64, 128}
    assert min(sizes.values()) >= 14
    pairs = {(one["optimize.batch_size"], math.floor(math.log10(one["optimize.learning_rate"]))) for one in values[1:]}
    assert len(pairs) == 16  # every size meets every decade


def test_the_same_seed_tries_the_same_and_another_seed_something_else(tmp_path: Path):
    tried = [
        [values for values, _ in trial_specs(load(tmp_path, f"tune: {{seed: {seed}, search: {{{RATE}}}}}"))]
        for seed in (3, 3, 4)
    ]
    assert tried[0] == tried[1]
    assert tried[0][1:] != tried[2][1:]
    assert len({values["optimize.learning_rate"] for values in tried[0]}) == 16


def test_a_range_of_whole_numbers_holds_whole_numbers_up_to_both_ends(tmp_path: Path):
    spec = load(tmp_path, "tune: {trials: 100, search: {optimize.batch_size: {min: 2, max: 5}}}")
    assert {each.optimize.batch_size for _, each in trial_specs(spec)} == {64, 2, 3, 4, 5}


@pytest.mark.parametrize(
    ("tune", "message"),
    [
        ("{search: {optimize.learning_rat: [1, 2]}}", "no such field: did you mean learning_rate?"),
        ("{search: {optimize.learning_rate.low: [1, 2]}}", "optimize.learning_rate.low: no such field"),
        ("{search: {name: [a, b]}}", "expected a field of augment, distill, model or optimize"),
        ("{search: {data.images: [a, b]}}", "such as optimize.learning_rate, got data.images"),
        ("{search: {optimize.epochs: [1, 2]}}", "every trial has all of them to spend"),
        ("{search: {optimize.learning_rate: 0.1}}", "a list of two values or more, or a range such as {min: 1.0e-5"),
        ("{search: {optimize.learning_rate: [0.1]}}", "optimize.learning_rate: expected a list of two values or more"),
        ("{search: {optimize.learning_rate: {min: 0.1}}}", "optimize.learning_rate.max: required, and missing"),
        ("{search: {optimize.learning_rate: {min: 1, max: 0.1}}}", "min: expected less than max (0.1), got 1"),
        ("{search: {optimize.learning_rate: {min: 0, max: 1, scale: log}}}", "above 0 with scale: log"),
        ("{search: {optimize.learning_rate: {min: x, max: 1}}}", "min: expected a number, got 'x'"),
        ("{search: {optimize.learning_rate: [0.1, -1]}}", "not every trial is a valid spec: optimize.learning_rate"),
        (
            "{search: {optimize.batch_size: {min: 0.5, max: 8.5}}}",
            "not every trial is a valid spec: optimize.batch_size",
        ),
        ("{search: {optimize.warmup_epochs: {min: 0, max: 9}}}", "not every trial is a valid spec"),
        ("{search: {}}", "search: expected at least one field and its values, such as"),
        (f"{{trials: 1, search: {{{RATE}}}}}", "trials: expected a number of at least 2, got 1"),
        (f"{{min_epochs: 5, search: {{{RATE}}}}}", "min_epochs: expected at most optimize.epochs (4), got 5"),
    ],
)
def test_a_search_that_cannot_work_is_refused_with_its_line(tmp_path: Path, tune: str, message: str):
    with pytest.raises(SpecError) as refused:
        load(tmp_path, f"tune: {tune}")
    assert "train.yaml:9" in str(refused.value)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("tracking", "message"),
    [
        ("{mlflow: mlflow.example}", "tracking.mlflow: expected the address of an MLflow server, such as http://"),
        ("{mlflow: 'sqlite:///m.db'}", "expected the address of an MLflow server"),
        ("{mlflow: 'https://me:secret@host'}", "those come from MLFLOW_TRACKING_USERNAME"),
        ("{mlflo: 'https://host'}", "no such field: did you mean mlflow?"),
    ],
)
def test_a_server_that_cannot_be_one_is_refused(tmp_path: Path, tracking: str, message: str):
    with pytest.raises(SpecError) as refused:
        load(tmp_path, f"tracking: {tracking}")
    assert message in str(refused.value)
    assert "secret" not in str(refused.value)
