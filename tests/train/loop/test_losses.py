from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError
from timm.loss import AsymmetricLossMultiLabel
from torch.nn import functional

from labelmill.dataset import Examples
from labelmill.errors import DataError
from labelmill.spec import Loss, TrainSpec
from labelmill.train.feed.balance import (
    check_weighted_labels,
    class_weights,
    drawing_weights,
    oversampled,
    positive_weights,
)
from labelmill.train.job import Job
from labelmill.train.loop.losses import Objective, build_objective
from train.runs import shapes_source

LABELS = ("blue", "green", "red")
CLASSES = np.eye(3, dtype=np.uint8)[[0] * 80 + [1] * 15 + [2] * 5]
CPU = torch.device("cpu")


def spec_with(task: str = "multi_label", **loss: object) -> TrainSpec:
    return TrainSpec.model_validate(shapes_source(Path()) | {"task": task, "optimize": {"loss": loss}})


def objective(task: str = "multi_label", targets: np.ndarray = CLASSES, **loss: object) -> Objective:
    return build_objective(Job(spec_with(task, **loss), LABELS, ""), targets, CPU)


def examples_of(targets: np.ndarray) -> Examples:
    uris = pa.array([str(number) for number in range(len(targets))])
    return Examples(uris, uris, targets)


def answers(num_pictures: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    logits = 3 * torch.randn(num_pictures, 3, generator=rng)
    return logits, (torch.rand(num_pictures, 3, generator=rng) < 0.4).float()


def cost(wanted: Objective, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return wanted(logits, targets, torch.empty(0))


@pytest.mark.parametrize("task", ["binary", "multi_label", "multi_class"])
@pytest.mark.parametrize("name", ["cross_entropy", "focal", "asymmetric"])
def test_the_loss_of_a_batch_is_that_of_its_parts(task: str, name: str):
    if (task, name) != ("multi_class", "asymmetric"):
        wanted, (logits, targets) = objective(task, name=name, label_smoothing=0.1), answers()
        parts = cost(wanted, logits[:4], targets[:4]) + cost(wanted, logits[4:], targets[4:])
        assert float(cost(wanted, logits, targets)) == pytest.approx(float(parts))


def test_without_more_said_the_losses_are_torchs_own():
    logits, targets = answers()
    plain = functional.binary_cross_entropy_with_logits(logits, targets) * len(logits)
    assert float(cost(objective(), logits, targets)) == pytest.approx(float(plain))
    classes = logits.argsort(dim=1)[:, 0]
    one_hot = functional.one_hot(classes, 3).float()
    plain = functional.cross_entropy(logits, classes, label_smoothing=0.2, reduction="sum")
    assert float(cost(objective("multi_class", label_smoothing=0.2), logits, one_hot)) == pytest.approx(float(plain))


def test_weights_do_what_torchs_weights_do():
    logits, targets = answers()
    weights = {"red": 3.0, "blue": 0.5}
    tensor = torch.tensor([0.5, 1.0, 3.0])
    given = cost(objective(positive_weights=weights), logits, targets)
    plain = functional.binary_cross_entropy_with_logits(logits, targets, pos_weight=tensor, reduction="sum") / 3
    assert float(given) == pytest.approx(float(plain))
    classes = torch.arange(7) % 3
    given = cost(objective("multi_class", class_weights=weights), logits, functional.one_hot(classes, 3).float())
    plain = functional.cross_entropy(logits, classes, weight=tensor, reduction="sum")
    assert float(given) == pytest.approx(float(plain))


def test_asymmetric_is_the_one_of_the_paper():
    logits, targets = answers()
    ours = cost(objective(name="asymmetric", gamma_positive=1, gamma_negative=3, margin=0.1), logits, targets)
    theirs = AsymmetricLossMultiLabel(gamma_pos=1, gamma_neg=3, clip=0.1)(logits, targets)
    assert float(ours) == pytest.approx(float(theirs) * len(logits) / 3, rel=1e-5)


@pytest.mark.parametrize("task", ["multi_label", "multi_class"])
def test_focal_without_focus_is_cross_entropy_and_with_it_forgives_what_is_easy(task: str):
    targets = torch.tensor([[1.0, 0, 0]])
    easy, hard = torch.tensor([[6.0, -6, -6]]), torch.tensor([[-1.0, 1, 1]])
    plain, flat, focal = (objective(task, **loss) for loss in ({}, {"name": "focal", "gamma": 0}, {"name": "focal"}))
    for logits in (easy, hard):
        assert float(cost(flat, logits, targets)) == pytest.approx(float(cost(plain, logits, targets)), rel=1e-5)
    kept = [float(cost(focal, logits, targets) / cost(plain, logits, targets)) for logits in (easy, hard)]
    assert kept[0] < 0.01 < 0.4 < kept[1] < 1


@pytest.mark.parametrize("name", ["focal", "asymmetric"])
def test_certain_answers_give_gradients_that_are_numbers(name: str):
    loss = {"name": "focal", "gamma": 0.5} if name == "focal" else {"name": "asymmetric", "gamma_negative": 0.5}
    for task in ("multi_label", "multi_class") if name == "focal" else ("multi_label",):
        logits = torch.tensor([[200.0, -200.0, 0.0]], requires_grad=True)
        for targets in (torch.tensor([[1.0, 0, 0]]), torch.tensor([[0, 1.0, 0]])):
            torch.autograd.backward(cost(objective(task, **loss), logits, targets))
        assert logits.grad is not None
        assert logits.grad.isfinite().all()


def test_rules_weigh_the_rare_label_most_and_a_picture_one_on_average():
    counts = CLASSES.sum(axis=0)
    inverse = class_weights(Loss(class_weights="inverse"), LABELS, CLASSES)
    assert inverse == pytest.approx(100 / 3 / counts)  # what scikit-learn calls balanced
    effective = class_weights(Loss(class_weights="effective_number", beta=0.9), LABELS, CLASSES)
    for weights in (inverse, effective):
        assert (weights * counts).sum() == pytest.approx(100)
    assert inverse[2] / inverse[0] > effective[2] / effective[0] > 1
    assert positive_weights(Loss(positive_weights="balanced"), LABELS, CLASSES) == pytest.approx([0.25, 85 / 15, 19])
    none = np.zeros((5, 3), dtype=np.uint8)
    assert np.isfinite(class_weights(Loss(class_weights="inverse"), LABELS, none)).all()
    assert positive_weights(Loss(positive_weights="balanced"), LABELS, none + 1).min() > 0


def test_weights_of_labels_that_are_not_there_are_named():
    with pytest.raises(DataError, match=r"names 'grean', and the data has no such label.*blue, green, red"):
        check_weighted_labels(Loss(class_weights={"grean": 2.0, "red": 3.0}), LABELS)


def test_oversampling_brings_rare_labels_up_and_keeps_the_epoch_as_long():
    rng = np.random.default_rng(0)
    drawn = CLASSES[oversampled(examples_of(CLASSES), 1.0).order(rng)]
    assert len(drawn) == 100
    assert drawn.sum(axis=0, dtype=int) == pytest.approx([33, 33, 33], abs=1.5)
    half = drawing_weights(CLASSES, 0.5)
    assert half[-1] == pytest.approx(4) and half[0] == 1
    several = np.array([[1, 1], [1, 0], [1, 0], [1, 0], [0, 0]], dtype=np.uint8)
    assert drawing_weights(several, 1.0).tolist() == [4, 1, 1, 1, 1]
    assert drawing_weights(np.array([[1], [0], [0]], dtype=np.uint8), 1.0).tolist() == [2, 1, 1]


def test_every_picture_is_drawn_sooner_or_later_and_none_too_often():
    rng = np.random.default_rng(1)
    examples = oversampled(examples_of(CLASSES), 1.0)
    draws = [np.bincount(examples.order(rng), minlength=100) for _ in range(20)]
    assert np.min(np.sum(draws, axis=0)) > 0
    assert all(counts[-5:].min() >= 6 and counts[-5:].max() <= 7 for counts in draws)


@pytest.mark.parametrize(
    ("task", "loss", "message"),
    [
        ("multi_class", {"name": "asymmetric"}, "asymmetric is for labels that stand each alone"),
        ("multi_class", {"positive_weights": "balanced"}, "take class_weights"),
        ("binary", {"class_weights": "inverse"}, "take positive_weights"),
        ("multi_label", {"gamma": 1.0}, "only the loss focal has it"),
        ("multi_label", {"name": "focal", "margin": 0.1}, "only the loss asymmetric has it"),
        ("multi_label", {"beta": 0.9}, "only class_weights: effective_number has it"),
        ("multi_label", {"class_weights": "inverted"}, "none, inverse or effective_number, or a mapping"),
        ("multi_label", {"class_weights": {"red": 0}}, "greater than 0"),
    ],
)
def test_what_does_not_go_together_is_refused(task: str, loss: dict[str, object], message: str):
    with pytest.raises(ValidationError, match=message):
        spec_with(task, **loss)
