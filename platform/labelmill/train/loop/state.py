"""What training changes: network, optimizer, progress; from the start, or from the run's folder."""

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import nn
from torch.amp.grad_scaler import GradScaler

from labelmill.errors import SpecError
from labelmill.model.network import load_weights, save_weights
from labelmill.train.job import Job
from labelmill.train.loop.optimizer import build_optimizer, load_optimizer, read_state, write_state
from labelmill.train.loop.precision import Precision
from labelmill.train.loop.starting_point import starting_point
from labelmill.train.loop.team import Team
from labelmill.train.progress import Progress, RunFolder

__all__ = ["State", "keep_state", "start_state"]


@dataclass
class State:
    """`average` follows the network, where the spec asks for one (Polyak & Juditsky, 1992)."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: GradScaler
    average: ModelEmaV3 | None
    progress: Progress

    @property
    def answering(self) -> nn.Module:
        """The network that is validated and published."""
        answering: nn.Module = self.network if self.average is None else self.average.module
        return answering


def start_state(job: Job, team: Team) -> State:
    """The state at the last checkpoint of this run, or the state before the first."""
    folder, model, optimize = RunFolder(job.run_uri), job.model, job.spec.optimize
    progress = folder.progress()
    torch.manual_seed(optimize.seed)
    start = starting_point(job)
    if progress is not None:
        start = replace(start, source="scratch", preprocessing=progress.preprocessing)
    elif team.rank > 0:  # the first worker fetches the weights and gives them to the others
        start = replace(start, source="scratch")
    network = start.build(job.labels, dropout=model.dropout, drop_path=model.drop_path)
    if optimize.gradient_checkpointing:
        _recompute_activations(network, model.architecture)
    network = network.to(team.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    state = State(
        network,
        build_optimizer(network, optimize),
        Precision.of(optimize.precision, team.device).scaler(),
        ModelEmaV3(network, decay=optimize.ema_decay, use_warmup=True) if optimize.ema_decay else None,
        progress or Progress(start.preprocessing),
    )
    if progress is not None:
        _restore(state, folder)
    return state


def keep_state(state: State, folder: RunFolder) -> None:
    """Write the state, complete or not at all."""
    rest: dict[str, Any] = {"optimizer": state.optimizer.state_dict(), "scaler": state.scaler.state_dict()}
    if state.average is not None:
        rest["network"] = state.network.state_dict()
    folder.save(
        state.progress,
        lambda path: save_weights(state.answering, path),
        lambda path: write_state(rest, path),
    )


def _restore(state: State, folder: RunFolder) -> None:
    with tempfile.TemporaryDirectory() as name:
        weights_path, rest_path = Path(name) / "weights.safetensors", Path(name) / "rest.safetensors"
        folder.download_state(state.progress, weights_path, rest_path)
        load_weights(state.answering, weights_path)
        rest = read_state(rest_path)
    if state.average is not None:
        state.network.load_state_dict(rest["network"])
    load_optimizer(state.optimizer, rest["optimizer"])
    state.scaler.load_state_dict(rest["scaler"])


def _recompute_activations(network: nn.Module, architecture: str) -> None:
    """Chen et al., Training Deep Nets with Sublinear Memory Cost, 2016; timm's networks know where to cut."""
    try:
        network.set_grad_checkpointing(True)  # type: ignore[operator]
    except (AttributeError, AssertionError) as exc:
        raise SpecError(
            f"{architecture} cannot compute its activations twice: leave optimize.gradient_checkpointing out, "
            "or raise optimize.accumulate to need less memory."
        ) from exc
