"""The training loop, the same in every worker and without Ray."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from timm.scheduler.scheduler import Scheduler
from torch import Tensor, nn

from labelmill.errors import DataError
from labelmill.images.transform import Preprocessing
from labelmill.metrics import evaluate
from labelmill.train.feed.feed import Batch, Feed, check_unreadable
from labelmill.train.job import Job
from labelmill.train.loop.layers import freeze
from labelmill.train.loop.losses import Objective, confidences
from labelmill.train.loop.mixing import mixed
from labelmill.train.loop.precision import Precision
from labelmill.train.loop.schedule import build_schedule
from labelmill.train.loop.state import State
from labelmill.train.loop.team import Team
from labelmill.train.progress import METRIC_BY_TASK, Epoch

__all__ = ["Course", "train"]

_NUM_CACHED_VALUES = 2**18  # 1 MiB
_NUM_CURVE_POINTS = 20  # an epoch
_NUM_ANSWERS_KEPT = 2048  # of the training pictures, for the metric of an epoch


@dataclass(frozen=True)
class Course:
    """What stays as it is from the first step of a run to its last, in one worker."""

    job: Job
    feed: Feed
    team: Team
    objective: Objective

    @cached_property
    def precision(self) -> Precision:
        return Precision.of(self.job.spec.optimize.precision, self.team.device)


@dataclass
class Pass:
    """What the steps of an epoch gave; `answers` are the logits and targets of its last pictures."""

    losses: list[Tensor] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    answers: deque[tuple[Tensor, Tensor]] = field(default_factory=deque)


def train(
    course: Course, state: State, keep: Callable[[State], None], *, is_due: Callable[[], bool] = lambda: False
) -> None:
    """Train from where `state` stands to the end of the run; `keep` is called on every worker after each epoch.

    `is_due` is asked after each step, on every worker, and must give all of them the same answer: whether to keep the
    state within the epoch, too. DataError: too many pictures cannot be read, or the loss is no longer a number.
    """
    optimize, feed, team = course.job.spec.optimize, course.feed, course.team
    schedule = build_schedule(state.optimizer, optimize, feed.num_steps)
    team.share(state.network)
    model: nn.Module | None = None

    def pause() -> None:
        if is_due():
            settle(state, team)
            keep(state)

    while not state.progress.is_finished(optimize):
        number, first_step = state.progress.num_epochs + 1, state.progress.step
        torch.manual_seed(_epoch_seed(optimize.seed, number, team.rank))
        state.network.train()
        if freeze(state.network, optimize, number) or model is None:
            model = team.join(state.network)  # DDP notes here whose gradients it averages
        started = time.monotonic()
        passed = train_epoch(course, model, state, schedule, pause)
        elapsed_s = time.monotonic() - started
        settle(state, team)
        epoch = measure_epoch(course, state, passed, (feed.num_steps - first_step) * feed.batch_size / elapsed_s)
        unreadable = {uri: reason for part in team.gather(feed.unreadable) for uri, reason in part.items()}
        check_unreadable(course.job.spec, unreadable, feed.num_pictures)
        state.progress = state.progress.after(epoch, unreadable)
        keep(state)


def train_epoch(course: Course, model: nn.Module, state: State, schedule: Scheduler, pause: Callable[[], None]) -> Pass:
    """The steps of the epoch under way that are not done yet; `pause` is called after each but the last."""
    feed, number = course.feed, state.progress.num_epochs + 1
    num_pieces = -(-_NUM_ANSWERS_KEPT // feed.batch_size) * course.job.spec.optimize.accumulate
    passed = Pass(answers=deque(maxlen=num_pieces))
    for batch in feed.training_batches(number, state.progress.step):
        num_steps_before = (number - 1) * feed.num_steps + state.progress.step
        schedule.step_update(num_steps_before)
        passed.rates.append(max(group["lr"] for group in state.optimizer.param_groups))
        train_step(course, model, state, batch, passed)
        if state.average is not None:
            state.average.update(state.network, step=num_steps_before + 1)
        state.progress = replace(state.progress, step=state.progress.step + 1)
        if state.progress.step < feed.num_steps:
            pause()
    return passed


def train_step(course: Course, model: nn.Module, state: State, batch: Batch, passed: Pass) -> None:
    """One step of the optimizer, on this worker's part of a batch; the part is computed in `accumulate` pieces."""
    optimize, team, precision = course.job.spec.optimize, course.team, course.precision
    state.optimizer.zero_grad(set_to_none=True)
    pieces = _pieces(batch, optimize.accumulate)
    losses = []
    for number, piece in enumerate(pieces, 1):
        pixels, targets = to_device(piece, state.progress.preprocessing, team.device)
        seed = optimize.seed, state.progress.num_epochs, state.progress.step, team.rank, number
        pixels, shares = mixed(pixels, targets, course.job.spec.augment, seed)
        with team.averaging(model, now=number == len(pieces)):
            with precision.autocast():
                logits = model(pixels).float()
            # DDP averages over the workers, whose parts of a batch may differ by a picture: hence not a plain mean.
            loss = course.objective(logits, shares, pixels) * team.size / course.feed.batch_size
            torch.autograd.backward(state.scaler.scale(loss))
        losses.append(loss.detach())
        passed.answers.append((logits.detach(), targets))
    if optimize.max_gradient_norm is not None:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.network.parameters(), optimize.max_gradient_norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    passed.losses.append(torch.stack(losses).sum())


def measure_epoch(course: Course, state: State, passed: Pass, pictures_per_s: float) -> Epoch:
    """The record of an epoch whose steps are done."""
    number = state.progress.num_epochs + 1
    losses = _finite(course.team.mean(torch.stack(passed.losses)).tolist(), number)
    metric, validation_loss = validate(course, state)
    return Epoch(
        number=number,
        loss=float(np.mean(losses)),
        metric=metric,
        learning_rate=passed.rates[-1],
        pictures_per_s=pictures_per_s,
        num_workers=course.team.size,
        curve=_curve(losses, passed.rates, state.progress.step - len(losses)),
        validation_loss=validation_loss,
        ended_at_s=time.time(),
        training_metric=_metric(course, [(confidences(course.job.spec.task, x), y) for x, y in passed.answers]),
    )


def validate(course: Course, state: State) -> tuple[float, float]:
    """The metric that chooses the best epoch, and the mean loss, over the validation pictures of the whole team."""
    network, team, task = state.answering.eval(), course.team, course.job.spec.task
    answers, losses = [], [0.0]
    with torch.inference_mode():
        for batch in course.feed.validation_batches():
            pixels, targets = to_device(batch, state.progress.preprocessing, team.device)
            with course.precision.autocast():
                logits = network(pixels).float()
            answers.append((confidences(task, logits), targets))
            losses.append(float(course.objective(logits, targets, pixels)))
    num_pictures = sum(len(targets) for _, targets in answers)
    sums = np.sum(team.gather((sum(losses), num_pictures)), axis=0)
    return _metric(course, answers), float(sums[0] / max(1, sums[1]))


def settle(state: State, team: Team) -> None:
    """Give every worker the mean of the running statistics, which each gathered over its own pictures."""
    average_buffers(state.network, team)
    if state.average is not None:
        average_buffers(state.average.module, team)


def average_buffers(network: nn.Module, team: Team) -> None:
    if team.size == 1:
        return
    buffers = [buffer for buffer in network.buffers() if buffer.is_floating_point()]
    if buffers:
        means = team.mean(torch.cat([buffer.flatten() for buffer in buffers]))
        for buffer, mean in zip(buffers, torch.split(means, [buffer.numel() for buffer in buffers]), strict=True):
            buffer.copy_(mean.view_as(buffer))


def to_device(batch: Batch, preprocessing: Preprocessing, device: torch.device) -> tuple[Tensor, Tensor]:
    """Normalised pixels [B, 3, S, S], channels last in memory, and targets [B, L], on the device."""
    pixels_bhwc, targets = (torch.from_numpy(array) for array in batch)
    if device.type == "cuda":
        pixels_bhwc, targets = (array.pin_memory().to(device, non_blocking=True) for array in (pixels_bhwc, targets))
    mean, std = (torch.tensor(values, device=device) for values in (preprocessing.mean, preprocessing.std))
    # By whole rows: channels last, the three means side by side would be a loop of three.
    factor, offset = (value.repeat(pixels_bhwc.shape[2]) for value in (1 / (255 * std), -mean / std))
    rows = pixels_bhwc.flatten(2)  # [B, S, S * 3]
    pixels = torch.empty(rows.shape, device=device)
    # A few pictures at a time stay in a core's cache from uint8 to the end.
    at_once = len(rows) if device.type == "cuda" else max(1, _NUM_CACHED_VALUES // rows[0].numel())
    for some, normalised in zip(torch.split(rows, at_once), torch.split(pixels, at_once), strict=True):
        torch.addcmul(offset, some.float(), factor, out=normalised)
    return pixels.view(pixels_bhwc.shape).permute(0, 3, 1, 2), targets


def _pieces(batch: Batch, count: int) -> list[Batch]:
    pixels, targets = batch
    count = min(count, len(pixels))
    return list(zip(np.array_split(pixels, count), np.array_split(targets, count), strict=True))


def _metric(course: Course, answers: list[tuple[Tensor, Tensor]]) -> float:
    """The task's metric over the confidences and targets [B, L] of the whole team."""
    task, labels = course.job.spec.task, course.job.labels
    empty = np.zeros((0, len(labels)), dtype=np.float32)

    def joined(arrays: list[Tensor]) -> NDArray[np.float32]:
        return np.concatenate([empty, *(array.cpu().numpy() for array in arrays)])

    parts = course.team.gather((joined([targets for _, targets in answers]), joined([given for given, _ in answers])))
    targets_nl, confidences_nl = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    metrics = evaluate(task, labels, targets_nl, confidences_nl, [0.5] * len(labels))
    return float(metrics[METRIC_BY_TASK[task]] or 0.0)


def _finite(losses: list[float], epoch: int) -> list[float]:
    if not np.isfinite(losses).all():
        step = int(np.flatnonzero(~np.isfinite(losses))[0]) + 1
        raise DataError(
            f"the loss is no longer a number after step {step} of epoch {epoch}: training diverged. "
            "Lower optimize.learning_rate, or lengthen optimize.warmup_epochs, and run again."
        )
    return losses


def _curve(losses: list[float], rates: list[float], first_step: int) -> tuple[tuple[int, float, float], ...]:
    """About twenty points of an epoch: step, mean loss since the last point, learning rate."""
    ends = np.unique(np.linspace(0, len(losses), _NUM_CURVE_POINTS + 1).round().astype(int))
    return tuple(
        (first_step + int(end), float(np.mean(losses[start:end])), rates[end - 1]) for start, end in pairwise(ends)
    )


def _epoch_seed(seed: int, epoch: int, rank: int) -> int:
    """Of what the network itself draws (dropout): its own for each worker, and the same when an epoch is repeated."""
    return int(np.random.SeedSequence([seed, epoch, rank]).generate_state(1)[0])
