"""The optimizer, by timm's name, and its state on disk without pickle."""

import inspect
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from timm.optim import create_optimizer_v2, get_optimizer_class
from torch import Tensor, nn

from labelmill.errors import SpecError
from labelmill.spec import Optimize
from labelmill.train.loop.layers import depths

__all__ = ["build_optimizer", "load_optimizer", "read_state", "write_state"]

_TENSOR = "tensor:"


def build_optimizer(network: nn.Module, optimize: Optimize) -> torch.optim.Optimizer:
    """The optimizer that the spec names; norms, biases and what the network itself exempts do not decay.

    With `layer_decay` d the layer that stands n below the head has the learning rate times d^n (Clark et al., ELECTRA,
    2020). SpecError: an option that the optimizer does not take.
    """
    options = dict(optimize.optimizer_options)
    if "fused" in inspect.signature(get_optimizer_class(optimize.optimizer, bind_defaults=False)).parameters:
        options["fused"] = True
    try:
        optimizer: torch.optim.Optimizer = create_optimizer_v2(
            _groups(network, optimize), optimize.optimizer, lr=optimize.learning_rate, **options
        )
    except (TypeError, ValueError) as exc:
        given = dict(optimize.optimizer_options)
        raise SpecError(
            f"optimize.optimizer_options {given} do not suit the optimizer {optimize.optimizer}: {exc}"
        ) from exc
    return optimizer


def _groups(network: nn.Module, optimize: Optimize) -> list[dict[str, Any]]:
    own_exemptions: Callable[[], Iterable[str]] = getattr(network, "no_weight_decay", tuple)  # timm's transformers
    exempt = set(own_exemptions())
    depth_of = depths(network) if optimize.layer_decay else {}
    deepest = max(depth_of.values(), default=0)
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in network.named_parameters():
        below = deepest - depth_of.get(name, deepest)
        decays = parameter.ndim > 1 and name not in exempt
        settings = {
            "params": [],
            "weight_decay": optimize.weight_decay if decays else 0.0,
            "lr_scale": (optimize.layer_decay or 1.0) ** below,
        }
        groups.setdefault((below, decays), settings)["params"].append(parameter)
    return list(groups.values())


def write_state(state: Mapping[str, Any], path: Path) -> None:
    """Write nested mappings, lists, numbers, words and tensors as safetensors; all but tensors in its header."""
    tensors: dict[str, Tensor] = {}

    def outline(value: Any) -> Any:
        if isinstance(value, Tensor):
            name = f"{_TENSOR}{len(tensors)}"
            # A copy: safetensors refuses tensors that share memory.
            tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
            return name
        if isinstance(value, Mapping):
            return [[key, outline(inner)] for key, inner in value.items()]  # keys may be numbers
        if isinstance(value, list | tuple):
            return {"list": [outline(inner) for inner in value]}
        if isinstance(value, torch.dtype):
            return {"dtype": str(value).removeprefix("torch.")}
        return value

    save_file(tensors, path, metadata={"outline": json.dumps(outline(state))})


def read_state(path: Path) -> dict[str, Any]:
    """Read a file of `write_state`; tensors are on the CPU, tuples have become lists."""
    with safe_open(path, framework="pt") as file:

        def filled(value: Any) -> Any:
            if isinstance(value, str) and value.startswith(_TENSOR):
                return file.get_tensor(value)
            if isinstance(value, list):
                return {key: filled(inner) for key, inner in value}
            if isinstance(value, dict) and "dtype" in value:
                return getattr(torch, value["dtype"])
            if isinstance(value, dict):
                return [filled(inner) for inner in value["list"]]
            return value

        state: dict[str, Any] = filled(json.loads(file.metadata()["outline"]))
    return state


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Fill a fresh optimizer of the same network with the `state_dict` of another."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for index, values in state["state"].items():
        if not isinstance(index, int):
            continue  # of the optimizer itself, not of a parameter
        for name, value in values.items():
            if isinstance(value, Tensor) and value.ndim > 0 and value.shape == parameters[index].shape:
                # The fused step walks memory, not indices: a moment must lie as its parameter does (channels last).
                here = torch.empty_like(parameters[index], dtype=value.dtype, requires_grad=False)
                values[name] = here.copy_(value)
    optimizer.load_state_dict(state)
