"""What every architecture costs: `python -m labelmill.model.architectures`, into `spec/train/architectures.csv`.

Counted at the architecture's own size and with 1,000 logits, on tensors without content: no weight is made or fetched.
"""

import csv
import sys

import timm
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from labelmill.errors import SpecError
from labelmill.model.network import architecture_names, build_network, default_preprocessing
from labelmill.spec import Architecture

__all__ = ["describe_architecture"]

_NUM_LOGITS = 1000


def describe_architecture(name: str) -> Architecture:
    """Parameters, side in pixels, multiply-adds of one picture's forward pass; whether there are weights to fetch."""
    size_px = default_preprocessing(name).image_size_px
    network = _network(name)
    with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
        network(torch.empty(1, 3, size_px, size_px))
    source, _, model = name.partition("/")
    return Architecture(
        name=name,
        num_parameters=sum(parameter.numel() for parameter in network.parameters()),
        image_size_px=size_px,
        num_multiply_adds=counter.get_total_flops() // 2,
        pretrained=source == "torchvision" or timm.is_model_pretrained(model),
    )


def _network(name: str) -> nn.Module:
    try:
        with torch.device("meta"):
            network = build_network(name, _NUM_LOGITS)
    except SpecError:  # some reckon their widths with tensors (torchvision's RegNet)
        network = build_network(name, _NUM_LOGITS).to("meta")
    return network.eval().requires_grad_(False)


def main() -> None:
    rows = csv.writer(sys.stdout, lineterminator="\n")
    rows.writerow(Architecture._fields)
    for name in architecture_names():
        rows.writerow(describe_architecture(name))


if __name__ == "__main__":
    main()
