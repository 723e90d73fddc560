"""The curves of a run as others draw them: named values over the optimizer's steps."""

from collections.abc import Iterator
from dataclasses import dataclass

from labelmill.spec import TrainSpec
from labelmill.train.progress import METRIC_BY_TASK, Epoch, Progress

__all__ = ["Point", "curve_points"]


@dataclass(frozen=True)
class Point:
    """One value of a curve. `step` counts from 1 over the whole run; `at_s` is a Unix time."""

    name: str
    step: int
    value: float
    at_s: float


def curve_points(spec: TrainSpec, progress: Progress) -> list[Point]:
    """Training loss and learning rate about twenty times an epoch, everything else at its end; in order of steps."""
    points: list[Point] = []
    steps_before = 0
    for epoch in progress.epochs:
        points += _points(spec, epoch, steps_before)
        steps_before = points[-1].step
    return points


def _points(spec: TrainSpec, epoch: Epoch, steps_before: int) -> Iterator[Point]:
    step = steps_before
    for step_in_epoch, loss, rate in epoch.curve:
        step = steps_before + step_in_epoch
        yield Point("training/loss", step, loss, epoch.ended_at_s)
        yield Point("training/learning_rate", step, rate, epoch.ended_at_s)
    metric = METRIC_BY_TASK[spec.task]
    at_the_end = {
        f"training/{metric}": epoch.training_metric,
        f"validation/{metric}": epoch.metric,
        "validation/loss": epoch.validation_loss,
        "speed/pictures_per_s": epoch.pictures_per_s,
    }
    for name, value in at_the_end.items():
        yield Point(name, step, value, epoch.ended_at_s)
