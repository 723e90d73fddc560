"""What training changes: network, optimizer, progress; from the start, or from the run's folder."""

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from labelmill.model.network import build_network, load_weights, save_weights
from labelmill.spec import Optimize
from labelmill.train.job import Job
from labelmill.train.progress import Progress, RunFolder
from labelmill.train.starting_point import starting_point
from labelmill.train.team import Team

__all__ = ["State", "build_optimizer", "keep_state", "start_state"]


@dataclass
class State:
    network: nn.Module
    optimizer: torch.optim.Optimizer
    progress: Progress


def start_state(job: Job, team: Team) -> State:
    """The state after the last complete epoch of this run, or the state before the first."""
    folder, model = RunFolder(job.run_uri), job.model
    progress = folder.progress()
    torch.manual_seed(job.spec.optimize.seed)
    start = starting_point(job)
    preprocessing = progress.preprocessing if progress else start.preprocessing
    if progress is None and team.rank == 0:
        network = start.build(job.labels)
    else:  # from the checkpoint, or from the first worker: DDP gives everyone its weights
        network = build_network(model.architecture, len(job.labels), image_size_px=preprocessing.image_size_px)
    network = network.to(team.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = build_optimizer(network, job.spec.optimize)
    if progress is None:
        return State(network, optimizer, Progress(preprocessing))
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "checkpoint.safetensors"
        folder.download_weights(progress.num_epochs, path)
        load_weights(network, path)
        folder.download_optimizer(progress.num_epochs, path)
        load_optimizer(optimizer, path)
    return State(network, optimizer, progress)


def keep_state(state: State, folder: RunFolder) -> None:
    """Write the state, complete or not at all."""
    folder.save(
        state.progress,
        lambda path: save_weights(state.network, path),
        lambda path: save_optimizer(state.optimizer, path),
    )


def build_optimizer(network: nn.Module, optimize: Optimize) -> torch.optim.AdamW:
    """AdamW (Loshchilov & Hutter, 2019); norms, biases and what the network itself exempts do not decay."""
    own_exemptions: Callable[[], Iterable[str]] = getattr(network, "no_weight_decay", tuple)  # timm's transformers
    exempt = set(own_exemptions())
    decaying: list[nn.Parameter] = []
    plain: list[nn.Parameter] = []
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            (plain if parameter.ndim <= 1 or name in exempt else decaying).append(parameter)
    groups = [{"params": decaying, "weight_decay": optimize.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=optimize.learning_rate, fused=True)


def save_optimizer(optimizer: torch.optim.Optimizer, path: Path) -> None:
    """Write the moments of every parameter as safetensors: `<index of the parameter>.<name of the moment>`."""
    moments = {
        f"{index}.{name}": value.detach().cpu().contiguous()
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
    }
    save_file(moments, path)


def load_optimizer(optimizer: torch.optim.Optimizer, path: Path) -> None:
    """Fill a fresh optimizer of the same network from a file of `save_optimizer`."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, value in load_file(path).items():
        index, name = key.split(".", 1)
        parameter = parameters[int(index)]
        if value.shape == parameter.shape and value.ndim > 0:
            # The fused step walks memory, not indices: a moment must lie as its parameter does (channels last).
            value = torch.empty_like(parameter, requires_grad=False).copy_(value)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
