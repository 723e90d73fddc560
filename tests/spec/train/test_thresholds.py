import pytest

from labelmill.errors import SpecError
from labelmill.spec import EvaluateSpec, TrainSpec, load_spec

TRAIN = """\
kind: train
name: digits
registry: ./registry
task: {task}
data: {{images: ./train, labels: ./train.csv}}
model: {{architecture: timm/resnet10t, weights: scratch}}
"""
EVALUATE = """\
kind: evaluate
name: again
registry: ./registry
model: digits@current
data: {images: ./night, labels: folders}
output: ./night-report
"""


@pytest.fixture
def load(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def load_text(text, *overrides):
        (tmp_path / "job.yaml").write_text(text)
        return load_spec("job.yaml", overrides, {}).spec

    return load_text


def refusal(load, task, *overrides):
    with pytest.raises(SpecError) as caught:
        load(TRAIN.format(task=task), *overrides)
    return str(caught.value)


def test_best_f1_and_a_fitting_calibration_are_what_nobody_needs_to_write(load):
    spec = load(TRAIN.format(task="multi_label"))
    assert isinstance(spec, TrainSpec)
    assert spec.thresholds.rule("any").model_dump(exclude_none=True) == {"labels": {}}
    assert (spec.calibration, spec.robustness_pictures) == ("auto", 0)


def test_a_label_may_have_a_rule_of_its_own(load):
    spec = load(TRAIN.format(task="binary"), "thresholds={min_precision: 0.9, labels: {7: {value: 1}, '8': {}}}")
    assert spec.thresholds.rule("other").min_precision == 0.9
    assert spec.thresholds.rule("7").value == 1.0
    assert spec.thresholds.rule("8").min_precision is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "thresholds={min_recall: 0.9, value: 0.5}",
            "thresholds.value: a threshold follows one rule, and min_recall is another: remove one of them",
        ),
        (
            "thresholds={false_positive_cost: 2}",
            "thresholds.false_negative_cost: required beside the other cost: a threshold weighs the two against each "
            "other",
        ),
        ("thresholds={min_precision: 0}", "thresholds.min_precision: expected a number above 0, got 0"),
        ("thresholds={labels: {cat: {min_rcall: 1}}}", "labels.cat.min_rcall: no such field: did you mean min_recall?"),
        ("calibration=platt", "calibration: expected auto, none, temperature or per_label, got 'platt'"),
        ("robustness_pictures=-1", "robustness_pictures: expected a number of at least 0, got -1"),
    ],
)
def test_rules_that_do_not_go_together_are_explained(load, override, message):
    assert refusal(load, "multi_label", override).endswith(message)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("thresholds={min_recall: 0.9}", "task multi_class gives each picture its top label, whatever the thresholds"),
        ("calibration=per_label", "task multi_class has confidences that sum to one: write temperature"),
    ],
)
def test_what_a_task_would_ignore_is_refused(load, override, message):
    assert message in refusal(load, "multi_class", override)


def test_an_evaluation_needs_only_a_model_and_labelled_pictures(load):
    spec = load(EVALUATE)
    assert isinstance(spec, EvaluateSpec)
    assert (spec.robustness_pictures, spec.engine, spec.max_unreadable_rate) == (500, "auto", 0.05)
    with pytest.raises(SpecError, match=r"data\.labels: expected folders, or the address"):
        load(EVALUATE, "data.labels=folder")
