"""The layers of a network in order: which of them learn, and how fast."""

from collections.abc import Callable
from typing import Any

from timm.models import group_parameters
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from labelmill.model.network import head_names
from labelmill.spec import Optimize

__all__ = ["depths", "freeze"]


def depths(network: nn.Module) -> dict[str, int]:
    """The layer of each parameter by its name: 0 sees the picture, the head is the last.

    timm's networks say so themselves; of others, each member of a Sequential, and each child outside one, is a layer.
    """
    names, head = [name for name, _ in network.named_parameters()], _head(network)
    matcher: Callable[..., Any] | None = getattr(network, "group_matcher", None)
    if matcher is not None:
        found: dict[str, int] = group_parameters(network, matcher(coarse=False), reverse=True)
    else:
        keys = [_layer_name(network, name) for name in names]
        order = {key: depth for depth, key in enumerate(dict.fromkeys(keys))}
        found = {name: order[key] for name, key in zip(names, keys, strict=True)}
    deepest = max((depth for name, depth in found.items() if name not in head), default=-1)
    return {name: deepest + 1 if name in head else found[name] for name in names}


def freeze(network: nn.Module, optimize: Optimize, epoch: int) -> bool:
    """Let those parameters learn that shall in this epoch, counted from 1; whether that has changed.

    Norms whose layer does not learn keep their statistics as well. Gradual: Howard & Ruder, Universal Language Model
    Fine-tuning for Text Classification, 2018. To be called after `network.train()`.
    """
    if optimize.freeze == "none":
        return False
    depth_of = depths(network)
    deepest = max(depth_of.values())
    first = deepest
    if optimize.freeze == "gradual":
        first -= min(deepest, (epoch - 1) * deepest // max(1, optimize.epochs // 2))
    changed = False
    for name, parameter in network.named_parameters():
        changed |= parameter.requires_grad != (depth_of[name] >= first)
        parameter.requires_grad_(depth_of[name] >= first)
    for module in network.modules():
        if isinstance(module, _BatchNorm) and not any(parameter.requires_grad for parameter in module.parameters()):
            module.eval()
    return changed


def _head(network: nn.Module) -> set[str]:
    heads = tuple(f"{head}." for head in head_names(network))
    return {name for name, _ in network.named_parameters() if name.startswith(heads)}


def _layer_name(network: nn.Module, name: str) -> str:
    steps = name.split(".")
    for length in range(1, len(steps) - 1):
        if isinstance(network.get_submodule(".".join(steps[:length])), nn.Sequential):
            return ".".join(steps[: length + 1])
    return steps[0]
