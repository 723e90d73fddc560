"""Pretrained weights: fetched from the hub of the architecture's library, or read from a file that somebody placed.

A machine without a way out needs one file, and the error says which, from where and in which place. timm's belongs
below `cache_folder()/pretrained/timm`, torchvision's where torch's own hub keeps it.
"""

import errno
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torchvision import models as torchvision_models

from labelmill.errors import SpecError, StorageError, UnavailableError, first_line
from labelmill.model.cache import cache_folder

__all__ = ["create_pretrained", "fetch_torchvision_state", "placed_file"]

_CANNOT_BE_KEPT = {
    errno.EACCES,
    errno.EPERM,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.ENOTDIR,
    errno.EEXIST,
}


def create_pretrained(name: str, **arguments: Any) -> nn.Module:
    """timm's network with timm's weights, through timm's own loading: other sizes, heads and label offsets included.

    SpecError: it has none. UnavailableError: the hub cannot be reached.
    """
    if not timm.is_model_pretrained(name):
        raise SpecError(f"timm has no pretrained weights for {name!r}: write weights: scratch or <path>.safetensors.")
    config = timm.get_pretrained_cfg(name)
    address = config.url
    if config.hf_hub_id:
        address = f"https://huggingface.co/{config.hf_hub_id}/resolve/main/model.safetensors"
    with _errors(f"timm/{name}", address, placed_file(name)):
        network = timm.create_model(name, pretrained=True, **arguments)
    assert isinstance(network, nn.Module)
    return network


def placed_file(name: str) -> Path:
    """Where the weights of timm's `name` may be placed by hand, as safetensors."""
    config = timm.get_pretrained_cfg(name)
    file = f"{config.architecture}.{config.tag}" if config else name
    return cache_folder() / "pretrained" / "timm" / f"{file}.safetensors"


def fetch_torchvision_state(name: str) -> dict[str, Tensor]:
    """torchvision's best weights of one of its classifiers. Errors as `create_pretrained`."""
    chosen = torchvision_models.get_model_weights(name).DEFAULT
    place = Path(torch.hub.get_dir(), "checkpoints", chosen.url.rpartition("/")[2])
    with _errors(f"torchvision/{name}", chosen.url, place):
        state: dict[str, Tensor] = chosen.get_state_dict(progress=False, check_hash=True, weights_only=True)
    return state


@contextmanager
def _errors(architecture: str, address: str, place: Path) -> Iterator[None]:
    try:
        yield
    except (RuntimeError, pickle.UnpicklingError, EOFError) as exc:
        if not place.is_file():
            raise  # of the size that was asked for
        raise SpecError(
            f"{place} does not hold the pretrained weights of {architecture}: {first_line(exc)}. "
            f"Expected the file that {address} gives: remove it, or replace it by that."
        ) from exc
    except OSError as exc:
        if exc.errno in _CANNOT_BE_KEPT:
            raise StorageError(
                f"pretrained weights of {architecture} cannot be kept on this machine: {first_line(exc)}. Set HF_HOME "
                "(those of timm) or TORCH_HOME (those of torchvision) to a folder that can be written and has room."
            ) from exc
        raise UnavailableError(
            f"pretrained weights of {architecture} could not be fetched: {first_line(exc)}. Connect this machine, or "
            f"download {address} elsewhere and place it here as {place}; the same spec then runs."
        ) from exc
