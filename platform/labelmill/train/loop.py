"""The training loop, the same in every worker and without Ray."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from labelmill.errors import DataError
from labelmill.images.transform import Preprocessing
from labelmill.metrics import evaluate
from labelmill.train.feed import Batch, Feed, check_unreadable
from labelmill.train.job import Job
from labelmill.train.losses import confidences, loss_sum
from labelmill.train.progress import METRIC_BY_TASK, Epoch
from labelmill.train.schedule import learning_rate
from labelmill.train.state import State
from labelmill.train.team import Team

__all__ = ["train"]

_NUM_CURVE_POINTS = 20  # an epoch


def train(job: Job, state: State, feed: Feed, team: Team, keep: Callable[[State], None]) -> None:
    """Train from where `state` stands to the last epoch; `keep` is called on every worker after each one.

    DataError: too many pictures cannot be read, or the loss is no longer a number.
    """
    model = team.join(state.network)
    for number in range(state.progress.num_epochs + 1, job.spec.optimize.epochs + 1):
        started = time.monotonic()
        losses, rates = train_epoch(job, model, state, feed, team)
        elapsed_s = time.monotonic() - started
        average_buffers(state.network, team)
        metric = validate(job, state, feed, team)
        unreadable = {uri: reason for part in team.gather(feed.unreadable) for uri, reason in part.items()}
        check_unreadable(job.spec, unreadable, feed.num_pictures)
        epoch = Epoch(
            number=number,
            loss=float(np.mean(losses)),
            metric=metric,
            learning_rate=rates[-1],
            pictures_per_s=len(losses) * feed.batch_size / elapsed_s,
            num_workers=team.size,
            ended_at_s=time.time(),
            curve=_curve(losses, rates),
        )
        state.progress = state.progress.after(epoch, unreadable)
        keep(state)


def train_epoch(job: Job, model: nn.Module, state: State, feed: Feed, team: Team) -> tuple[list[float], list[float]]:
    """One pass over the training pictures: loss over the whole batch, and learning rate, of each step."""
    number = state.progress.num_epochs + 1
    losses, rates = [], []
    model.train()
    for step, batch in enumerate(feed.training_batches(number)):
        rates.append(learning_rate((number - 1) * feed.num_steps + step, feed.num_steps, job.spec.optimize))
        for group in state.optimizer.param_groups:
            group["lr"] = rates[-1]
        pixels, targets = to_device(batch, state.progress.preprocessing, team.device)
        with precision(team.device):
            logits = model(pixels)
        # DDP averages over the workers, whose parts of a batch may differ by a picture: hence not a plain mean.
        loss = loss_sum(job.spec.task, logits.float(), targets) * team.size / feed.batch_size
        state.optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(loss)
        state.optimizer.step()
        losses.append(loss.detach())
    return _finite(team.mean(torch.stack(losses)).tolist(), number), rates


def validate(job: Job, state: State, feed: Feed, team: Team) -> float:
    """The metric that chooses the best epoch, over the validation pictures of the whole team."""
    network, preprocessing = state.network.eval(), state.progress.preprocessing
    answers, truth = [], []
    with torch.inference_mode(), precision(team.device):
        for batch in feed.validation_batches():
            pixels, targets = to_device(batch, preprocessing, team.device)
            answers.append(confidences(job.spec.task, network(pixels).float()).cpu().numpy())
            truth.append(targets.cpu().numpy())
    empty = np.zeros((0, len(job.labels)), dtype=np.float32)
    parts = team.gather((np.concatenate([empty, *truth]), np.concatenate([empty, *answers])))
    targets_nl, confidences_nl = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    metrics = evaluate(job.spec.task, job.labels, targets_nl, confidences_nl, [0.5] * len(job.labels))
    return float(metrics[METRIC_BY_TASK[job.spec.task]] or 0.0)


def average_buffers(network: nn.Module, team: Team) -> None:
    """Give every worker the mean of the running statistics, which each gathered over its own pictures."""
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
        pixels_bhwc, targets = pixels_bhwc.pin_memory(), targets.pin_memory()
    pixels = pixels_bhwc.to(device, non_blocking=True).permute(0, 3, 1, 2).float()
    mean, std = (
        torch.tensor(values, device=device).view(1, 3, 1, 1) * 255 for values in (preprocessing.mean, preprocessing.std)
    )
    return (pixels - mean) / std, targets.to(device, non_blocking=True)


def precision(device: torch.device) -> AbstractContextManager[Any]:
    """bfloat16 where it is fast; the range of float32, so no loss scaling."""
    return torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()


def _finite(losses: list[float], epoch: int) -> list[float]:
    if not np.isfinite(losses).all():
        step = int(np.flatnonzero(~np.isfinite(losses))[0]) + 1
        raise DataError(
            f"the loss is no longer a number after step {step} of epoch {epoch}: training diverged. "
            "Lower optimize.learning_rate, or lengthen optimize.warmup_epochs, and run again."
        )
    return losses


def _curve(losses: list[float], rates: list[float]) -> tuple[tuple[int, float, float], ...]:
    """About twenty points of an epoch: step, mean loss since the last point, learning rate."""
    ends = np.unique(np.linspace(0, len(losses), _NUM_CURVE_POINTS + 1).round().astype(int))
    return tuple((int(end), float(np.mean(losses[start:end])), rates[end - 1]) for start, end in pairwise(ends))
