"""What training changes: network, optimizer, progress; from the start, or from the run's folder."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import nn

from labelmill.errors import SpecError
from labelmill.model.network import build_network, default_preprocessing, load_weights, save_weights
from labelmill.model.registry import Registry
from labelmill.spec import TrainSpec
from labelmill.train.job import Job
from labelmill.train.optimizer import build_optimizer, load_optimizer, read_state, write_state
from labelmill.train.precision import Precision
from labelmill.train.progress import Progress, RunFolder
from labelmill.train.team import Team

__all__ = ["State", "keep_state", "start_state"]


@dataclass
class State:
    """`average` follows the network, where the spec asks for one (Polyak & Juditsky, 1992)."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    average: ModelEmaV3 | None
    progress: Progress

    @property
    def answering(self) -> nn.Module:
        """The network that is validated and published."""
        answering: nn.Module = self.network if self.average is None else self.average.module
        return answering


def start_state(job: Job, team: Team) -> State:
    """The state at the last checkpoint of this run, or the state before the first."""
    folder, model, optimize = RunFolder(job.run_uri), job.spec.model, job.spec.optimize
    progress = folder.progress()
    torch.manual_seed(optimize.seed)
    # DDP gives everyone the first worker's weights at the start, so only that one fetches them.
    weights = _local_weights(job.spec) if progress is None and team.rank == 0 else "scratch"
    network = build_network(model.architecture, len(job.labels), weights, image_size_px=model.image_size_px)
    if optimize.gradient_checkpointing:
        _recompute_activations(network, model.architecture)
    network = network.to(team.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    state = State(
        network,
        build_optimizer(network, optimize),
        Precision.of(optimize.precision, team.device).scaler(),
        ModelEmaV3(network, decay=optimize.ema_decay, use_warmup=True) if optimize.ema_decay else None,
        progress or Progress(default_preprocessing(model.architecture, model.image_size_px)),
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


def _local_weights(spec: TrainSpec) -> str:
    weights = spec.model.weights
    return str(Registry(spec.registry).resolve(weights).weights_path()) if "@" in weights else weights
