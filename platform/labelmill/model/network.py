"""Networks by name: every classifier of timm and torchvision, with the right number of logits.

A name is "timm/<model>" (a pretrained tag may follow, "timm/resnet18.a1_in1k") or "torchvision/<model>"; those of
bundles may also be "ensemble:<name>+<name>" or "pruned-<share>:<name>". Auxiliary heads are never built: the network
gives one tensor of logits, in training as in inference.
"""

import difflib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, load_model, save_model
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torchvision import models as torchvision_models
from torchvision.models.vision_transformer import interpolate_embeddings

from labelmill.errors import BundleError, SpecError, first_line
from labelmill.images.transform import Preprocessing
from labelmill.model.ensemble import Ensemble, ensemble_members
from labelmill.model.hub import create_pretrained, fetch_torchvision_state, placed_file
from labelmill.model.pruned import prune_channels, pruned_share

__all__ = [
    "architecture_names",
    "build_network",
    "default_preprocessing",
    "head_names",
    "head_of",
    "load_weights",
    "save_weights",
]

# transform_input turns ImageNet's mean and std into the 0.5 that these two networks were trained with, so that scratch,
# pretrained and reloaded networks all expect the same pixels.
_TORCHVISION_ARGUMENTS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "transform_input": True, "init_weights": True},
    "inception_v3": {"aux_logits": False, "transform_input": True, "init_weights": True},
}

# What the libraries call them.
_DROPS = {
    "timm": {"dropout": "drop_rate", "drop_path": "drop_path_rate"},
    "torchvision": {"dropout": "dropout", "drop_path": "stochastic_depth_prob"},
}


def architecture_names() -> list[str]:
    """Every name that `build_network` takes, sorted: "timm/…" (without pretrained tags), then "torchvision/…"."""
    return [f"timm/{name}" for name in sorted(timm.list_models()) if _is_timm_model(name)] + [
        f"torchvision/{name}" for name in sorted(torchvision_models.list_models(module=torchvision_models))
    ]


def build_network(
    architecture: str,
    num_logits: int,
    weights: str = "scratch",
    *,
    image_size_px: int | None = None,
    head_rows: Sequence[int | None] | None = None,
    dropout: float | None = None,
    drop_path: float | None = None,
) -> nn.Module:
    """The network, in float32 on the CPU, taking normalised pixels [B, 3, S, S] and giving logits [B, num_logits].

    `weights` is "scratch", "pretrained" (the library's own, fetched from its hub) or the path of a .safetensors file.
    `head_rows` says for each logit from which row of the file's last layer it starts, None for one that starts from
    scratch; without it the last layer is taken whole where it fits, and starts from scratch otherwise. `image_size_px`
    is the side S, by default the architecture's own; transformers with a fixed grid are built for it. `dropout` and
    `drop_path` (Huang et al., Deep Networks with Stochastic Depth, 2016) are those for training; they have no weights.

    SpecError: no such architecture, a size or a dropout it cannot take, weights that do not fit. UnavailableError: the
    hub cannot be reached.
    """
    if pruned := pruned_share(architecture):
        share, whole = pruned
        network = build_network(
            whole,
            num_logits,
            weights,
            image_size_px=image_size_px,
            head_rows=head_rows,
            dropout=dropout,
            drop_path=drop_path,
        )
        prune_channels(network, share)
        return network
    if members := ensemble_members(architecture):
        networks = [
            build_network(member.architecture, num_logits, image_size_px=member.image_size_px or image_size_px)
            for member in members
        ]
        return Ensemble(networks, [member.image_size_px for member in members], num_logits)
    source, name = _split(architecture)
    size_px = image_size_px or default_preprocessing(architecture).image_size_px
    build = _build_timm if source == "timm" else _build_torchvision
    asked = {"dropout": dropout, "drop_path": drop_path}
    drops = {_DROPS[source][field]: value for field, value in asked.items() if value is not None}
    with _size_errors(architecture, size_px), _drop_errors(architecture, drops):
        network = build(name, num_logits, weights, size_px, head_rows, drops)
        _dry_run(network, size_px)
    return network


def default_preprocessing(architecture: str, image_size_px: int | None = None) -> Preprocessing:
    """What the architecture was made for: its side in pixels unless given, crop fraction, mean, std. Offline."""
    if pruned := pruned_share(architecture):
        return default_preprocessing(pruned[1], image_size_px)
    source, name = _split(architecture)
    if source == "timm":
        config = timm.data.resolve_data_config(pretrained_cfg=_timm_config(name))
        size_px, crop = config["input_size"][-1], config["crop_pct"]
        mean, std = config["mean"], config["std"]
    else:
        transform = torchvision_models.get_model_weights(name).DEFAULT.transforms()
        size_px, crop = transform.crop_size[0], transform.crop_size[0] / transform.resize_size[0]
        mean, std = transform.mean, transform.std
    return Preprocessing(
        image_size_px=image_size_px or int(size_px),
        crop_fraction=min(1.0, float(crop)),
        mean=(float(mean[0]), float(mean[1]), float(mean[2])),
        std=(float(std[0]), float(std[1]), float(std[2])),
    )


def save_weights(network: nn.Module, path: str | Path) -> None:
    """Write the network's parameters and buffers as safetensors."""
    save_model(network, str(path))


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Fill the network from a file of `save_weights`. BundleError unless every tensor is there in its shape."""
    try:
        load_model(network, path)
    except (SafetensorError, OSError, RuntimeError) as exc:
        raise BundleError(
            f"weights file {path} does not fit the network: {first_line(exc)}. "
            "Expected every tensor of the architecture and nothing else; publish the model again from its training run."
        ) from exc


def head_of(network: nn.Module) -> nn.Module:
    """The last layer, from features to logits: a linear layer, or a convolution (SqueezeNet). Where a network averages
    several (DeiT with distillation), the first."""
    return network.get_submodule(head_names(network)[0])


def head_names(network: nn.Module) -> tuple[str, ...]:
    """The names of the layers that give the logits; mostly one."""
    config = getattr(network, "pretrained_cfg", None) or {}  # timm's networks carry theirs
    named = config.get("classifier") or ()
    layers = [name for name, module in network.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    return tuple(name for name in ((named,) if isinstance(named, str) else named) if name in layers) or (layers[-1],)


def _split(architecture: str) -> tuple[str, str]:
    source, _, name = architecture.partition("/")
    if source == "timm" and _is_timm_model(name):
        return source, name
    if source == "torchvision" and architecture in architecture_names():
        return source, name
    near = difflib.get_close_matches(architecture, architecture_names(), n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else 'write "timm/<model>" or "torchvision/<model>".'
    raise SpecError(f"architecture {architecture!r} is neither a timm nor a torchvision classifier: {hint}")


def _is_timm_model(name: str) -> bool:
    bare, _, tag = name.partition(".")
    is_classifier = timm.is_model(bare) and not bare.endswith("_enc")  # encoders have no head at all
    return is_classifier and (not tag or name in timm.list_pretrained(f"{bare}.*"))


def _timm_config(name: str) -> dict[str, Any]:
    config = timm.get_pretrained_cfg(name)
    return config.to_dict() if config else {}


def _build_timm(
    name: str,
    num_logits: int,
    weights: str,
    size_px: int,
    head_rows: Sequence[int | None] | None,
    drops: Mapping[str, float],
) -> nn.Module:
    arguments: dict[str, Any] = {"num_classes": num_logits, **drops}
    if _timm_config(name).get("fixed_input_size"):
        arguments["img_size"] = size_px
    if weights == "pretrained":
        if not (place := placed_file(name)).is_file():
            return create_pretrained(name, **arguments)
        weights = str(place)
    network = _as_module(timm.create_model(name, **arguments))
    if weights != "scratch":
        # By timm's convention a network's module has a function that fits a state to it (positions of another size).
        fit = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
        state = _read_state(weights)
        with _weights_errors(weights, f"timm/{name}"):
            _load_state(network, fit(state, network) if fit else state, head_rows)
    return network


def _build_torchvision(
    name: str,
    num_logits: int,
    weights: str,
    size_px: int,
    head_rows: Sequence[int | None] | None,
    drops: Mapping[str, float],
) -> nn.Module:
    arguments = {**_TORCHVISION_ARGUMENTS.get(name, {}), **drops}
    if name.startswith("vit_"):
        arguments["image_size"] = size_px
    elif name == "maxvit_t":
        arguments["input_size"] = (size_px, size_px)
    network = _as_module(torchvision_models.get_model(name, weights=None, num_classes=num_logits, **arguments))
    if weights == "scratch":
        return network
    state = fetch_torchvision_state(name) if weights == "pretrained" else _read_state(weights)
    with _weights_errors(weights, f"torchvision/{name}"):
        if name.startswith("vit_"):
            state = interpolate_embeddings(size_px, network.patch_size, state)
        _load_state(network, state, head_rows)
    return network


def _as_module(network: Any) -> nn.Module:
    assert isinstance(network, nn.Module)
    return network


def _load_state(network: nn.Module, state: Mapping[str, Tensor], head_rows: Sequence[int | None] | None) -> None:
    """Load every tensor but those of auxiliary heads; of the last layer the rows that are wanted."""
    own = network.state_dict()
    of_heads = {f"{head}.{kind}" for head in head_names(network) for kind in ("weight", "bias")} & own.keys()
    kept = {key: value for key, value in state.items() if not key.startswith(("aux", "AuxLogits."))}
    for key in of_heads:
        kept[key] = _head_tensor(own[key], kept.get(key), head_rows)
    network.load_state_dict(kept)


def _head_tensor(own: Tensor, given: Tensor | None, rows: Sequence[int | None] | None) -> Tensor:
    if given is None or given.shape[1:] != own.shape[1:]:
        return own
    if rows is None:
        return given if given.shape == own.shape else own
    tensor = own.clone()
    for index, row in enumerate(rows):
        if row is not None:
            tensor[index] = given[row]
    return tensor


def _read_state(path: str) -> dict[str, Tensor]:
    if not path.endswith(".safetensors"):
        raise SpecError(
            f"weights {path!r} are none of: scratch, pretrained, <name>@<version>, <path>.safetensors. "
            "A pickled checkpoint (.pth, .bin) may run code when it is read: convert it to safetensors first."
        )
    try:
        state: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as exc:
        raise SpecError(
            f"weights file {path!r} cannot be read: {first_line(exc)}. Check the path and the file."
        ) from exc
    return state


def _dry_run(network: nn.Module, size_px: int) -> None:
    """Run the network on shapes alone (no arithmetic): a size it cannot take is known here, not in a worker."""
    if next(network.parameters()).is_meta:
        return  # only looked at, by whoever made it on the device of that name
    was_training = network.training
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        network.eval()(torch.empty(1, 3, size_px, size_px))
    network.train(was_training)


@contextmanager
def _size_errors(architecture: str, size_px: int) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError, AssertionError, TypeError, IndexError) as exc:
        own = default_preprocessing(architecture).image_size_px
        raise SpecError(
            f"{architecture} cannot take pictures of {size_px} x {size_px} px: {first_line(exc)}. "
            f"Its own size is {own} px: leave image_size_px out, or choose one closer to it."
        ) from exc


@contextmanager
def _drop_errors(architecture: str, drops: Mapping[str, float]) -> Iterator[None]:
    try:
        yield
    except TypeError as exc:
        refused = next((name for name in drops if f"'{name}'" in str(exc)), None)
        if refused is None:
            raise
        field = next(field for names in _DROPS.values() for field, name in names.items() if name == refused)
        raise SpecError(f"{architecture} has no {field} that can be set: leave model.{field} out.") from exc


@contextmanager
def _weights_errors(weights: str, architecture: str) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, KeyError) as exc:
        raise SpecError(
            f"weights {weights!r} do not fit {architecture}: {first_line(exc)}. "
            "Expected a state dict of this very architecture."
        ) from exc
