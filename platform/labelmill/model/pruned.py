"""Networks without the weakest channels inside their blocks: fewer operations on any hardware, and no sparse kernels.

What is removed are whole channels between two layers of a block, where nothing else sees them: the first convolutions
of a residual block, the hidden layer of a transformer's MLP, the wide middle of an inverted residual with its depthwise
convolution and squeeze-and-excitation. The width of the blocks' outputs stays, which keeps additions and the head as
they are (Li et al., Pruning Filters for Efficient ConvNets, 2017).

How many channels go follows from the layers' shapes and the share alone, so the architecture's name says it all:
"pruned-0.3:timm/resnet18" can be built anew, and takes the weights that were kept.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from labelmill.errors import SpecError

__all__ = ["prune_channels", "pruned_architecture", "pruned_share"]

_NAME = re.compile(r"pruned-(0\.[0-9]+):(.+)")
_GROUP = 8  # channels go in eights: what is left fills vector registers
# What leaves every channel where it is.
_CHANNELWISE_LAYERS = (
    nn.Identity,
    nn.Dropout,
    nn.Dropout2d,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Sigmoid,
)
_ACTIVATIONS = ("torch.nn.modules.activation", "timm.layers.activations")
_POOLING = frozenset({"max_pool2d", "avg_pool2d", "adaptive_avg_pool2d"})
_ELEMENTWISE = frozenset(
    {"relu", "relu_", "relu6", "silu", "gelu", "hardswish", "hardsigmoid", "sigmoid", "sigmoid_", "tanh", "dropout"}
)
_MULTIPLICATIONS = frozenset({"mul", "mul_", "imul"})


def pruned_architecture(architecture: str, share: float) -> str:
    """The name of the architecture without this share of its inner channels."""
    return f"pruned-{share:g}:{architecture}"


def pruned_share(architecture: str) -> tuple[float, str] | None:
    """The share and the architecture that a pruned one's name holds; None when it is not pruned."""
    found = _NAME.fullmatch(architecture)
    return (float(found[1]), found[2]) if found else None


def prune_channels(network: nn.Module, share: float) -> None:
    """Remove this share of the channels of every group that can lose some, the least weighty of each, in place.

    SpecError: the network has no channels that only its blocks' insides see, or cannot be traced (torch.fx).
    """
    groups = [group for group in _groups(network) if group.consumers and not group.is_seen_elsewhere]
    layers = dict(network.named_modules())
    removed = 0
    for group in groups:
        width = _width_out(layers[group.producers[0]])
        kept = width - math.floor(share * width / _GROUP) * _GROUP
        if kept < width:
            weights = _importance(layers, group)
            _keep(layers, group, weights.argsort(descending=True, stable=True)[:kept].sort().values)
            removed += width - kept
    if not removed:
        raise SpecError(
            f"nothing to prune: of {len(groups)} groups of inner channels none has {_GROUP} to lose at a share of "
            f"{share:g}. Raise prune.share, or choose a wider architecture."
        )


@dataclass
class _Group:
    """Channels that are made and read together, by the names of layers: `producers` make them, `followers` (norms,
    depthwise convolutions) handle each by itself, `consumers` read them all."""

    producers: list[str] = field(default_factory=list)
    followers: list[str] = field(default_factory=list)
    consumers: list[str] = field(default_factory=list)
    is_seen_elsewhere: bool = False

    def join(self, other: "_Group") -> None:
        self.producers += other.producers
        self.followers += other.followers
        self.consumers += other.consumers
        self.is_seen_elsewhere |= other.is_seen_elsewhere


class _Tracer(fx.Tracer):
    """Looks into blocks, not into layers."""

    def is_leaf_module(self, module: nn.Module, name: str) -> bool:
        return isinstance(module, _BatchNorm) or next(module.children(), None) is None


def _groups(network: nn.Module) -> list[_Group]:
    was_training = network.training
    try:
        graph = _Tracer().trace(network.eval())
    except (fx.proxy.TraceError, TypeError, RuntimeError, ValueError, AttributeError, IndexError) as exc:
        raise SpecError(
            f"the network cannot be pruned: its graph depends on the pictures ({str(exc).splitlines()[0]}). "
            "Choose another architecture, or approach quantize."
        ) from exc
    finally:
        network.train(was_training)
    walk = _Walk(dict(network.named_modules()))
    for node in graph.nodes:
        walk.visit(node)
    return walk.groups


class _Walk:
    """Follows channels through a graph, node by node."""

    def __init__(self, layers: dict[str, nn.Module]) -> None:
        self.groups: list[_Group] = []
        self._layers = layers
        self._used: set[str] = set()
        self._group_of: dict[fx.Node, _Group] = {}

    def visit(self, node: fx.Node) -> None:
        sources = [source for source in node.all_input_nodes if source in self._group_of]
        if node.op == "call_module":
            self._layer(node, str(node.target), sources)
        elif node.op in ("call_function", "call_method") and _is_channelwise(node) and len(sources) == 1:
            self._group_of[node] = self._group_of[sources[0]]
        elif node.op in ("call_function", "call_method") and _name(node) in _MULTIPLICATIONS and len(sources) == 2:
            self._group_of[node] = self._joined(*sources)  # a gate and what it gates
        else:
            self._give_up(sources)

    def _layer(self, node: fx.Node, name: str, sources: Sequence[fx.Node]) -> None:
        layer = self._layers[name]
        if name in self._used:  # a second time, for other channels perhaps
            self._give_up(sources)
            for group in self.groups:
                group.is_seen_elsewhere |= name in (*group.producers, *group.followers, *group.consumers)
        elif isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1):
            self._used.add(name)
            for source in sources:
                self._group_of[source].consumers.append(name)
            self._group_of[node] = _Group([name])
            self.groups.append(self._group_of[node])
        elif sources and (_is_depthwise(layer) or isinstance(layer, _BatchNorm)):
            self._used.add(name)
            self._group_of[sources[0]].followers.append(name)
            self._group_of[node] = self._group_of[sources[0]]
        elif sources and (isinstance(layer, _CHANNELWISE_LAYERS) or _is_activation(layer)):
            self._group_of[node] = self._group_of[sources[0]]
        else:
            self._give_up(sources)

    def _joined(self, left: fx.Node, right: fx.Node) -> _Group:
        one, other = self._group_of[left], self._group_of[right]
        if one is not other:
            one.join(other)
            self.groups.remove(other)
            self._group_of = {node: one if group is other else group for node, group in self._group_of.items()}
        return one

    def _give_up(self, sources: Iterable[fx.Node]) -> None:
        for source in sources:
            self._group_of[source].is_seen_elsewhere = True


def _name(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")


def _is_channelwise(node: fx.Node) -> bool:
    if _name(node) == "mean":  # over height and width
        return (node.args[1] if len(node.args) > 1 else node.kwargs.get("dim")) in ((2, 3), [2, 3])
    return _name(node) in _ELEMENTWISE | _POOLING


def _is_depthwise(layer: nn.Module) -> bool:
    return isinstance(layer, nn.Conv2d) and layer.groups == layer.in_channels == layer.out_channels


def _is_activation(layer: nn.Module) -> bool:
    return type(layer).__module__.startswith(_ACTIVATIONS) and not isinstance(
        layer, nn.Softmax | nn.LogSoftmax | nn.Softmax2d | nn.GLU | nn.MultiheadAttention | nn.PReLU
    )


def _width_out(layer: nn.Module) -> int:
    assert isinstance(layer, nn.Linear | nn.Conv2d)
    return int(layer.weight.shape[0])


def _importance(layers: dict[str, nn.Module], group: _Group) -> Tensor:
    """How much of each channel reaches the next layers [C]: the size at which it comes, times the weights that read
    it. After a norm the size is the norm's, whatever the weights before it."""
    norms = [layers[name] for name in group.followers if isinstance(layers[name], _BatchNorm)]
    if norms and isinstance(scale := norms[-1].weight, Tensor):
        size = scale.detach().abs()
    else:
        size = sum((_rows(layers[name]) for name in group.producers), start=torch.zeros(()))
    read = sum((_columns(layers[name]) for name in group.consumers), start=torch.zeros(()))
    return size * read


def _rows(layer: nn.Module) -> Tensor:
    assert isinstance(layer.weight, Tensor)
    norms: Tensor = torch.linalg.vector_norm(layer.weight.detach().flatten(1), dim=1)
    return norms


def _columns(layer: nn.Module) -> Tensor:
    assert isinstance(layer.weight, Tensor)
    norms: Tensor = torch.linalg.vector_norm(layer.weight.detach().transpose(0, 1).flatten(1), dim=1)
    return norms


@torch.no_grad()
def _keep(layers: dict[str, nn.Module], group: _Group, channels: Tensor) -> None:
    """Leave only these channels in every layer of the group."""
    for name in (*group.producers, *group.followers):
        _take(layers[name], ("weight", "bias", "running_mean", "running_var"), channels, dim=0)
        _set_width(layers[name], ("out_channels", "out_features", "num_features"), len(channels))
        if name in group.followers:
            _set_width(layers[name], ("in_channels", "groups"), len(channels))
    for name in group.consumers:
        _take(layers[name], ("weight",), channels, dim=1)
        _set_width(layers[name], ("in_channels", "in_features"), len(channels))


def _take(layer: nn.Module, names: Sequence[str], channels: Tensor, dim: int) -> None:
    for name in names:
        tensor = getattr(layer, name, None)
        if tensor is not None:
            taken = tensor.index_select(dim, channels).contiguous()
            setattr(layer, name, nn.Parameter(taken) if isinstance(tensor, nn.Parameter) else taken)


def _set_width(layer: nn.Module, names: Sequence[str], width: int) -> None:
    for name in names:
        if hasattr(layer, name):
            setattr(layer, name, width)
