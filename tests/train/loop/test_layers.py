from itertools import pairwise

import pytest
import torch
from torch import nn

from labelmill.model.network import build_network, head_of
from labelmill.spec import Optimize
from labelmill.train.loop.layers import depths, freeze
from labelmill.train.loop.optimizer import build_optimizer

NETWORKS = [("timm/test_resnet", 32), ("timm/test_vit", 48), ("torchvision/squeezenet1_1", 32)]


def learning(network: nn.Module) -> set[str]:
    return {name for name, parameter in network.named_parameters() if parameter.requires_grad}


@pytest.mark.parametrize(("architecture", "image_size_px"), NETWORKS)
def test_layers_are_in_order_from_the_picture_to_the_head(architecture: str, image_size_px: int):
    network = build_network(architecture, 3, image_size_px=image_size_px)
    depth_of = depths(network)
    assert set(depth_of) == {name for name, _ in network.named_parameters()}
    assert set(depth_of.values()) == set(range(max(depth_of.values()) + 1))
    assert max(depth_of.values()) >= 3
    head = {id(parameter) for parameter in head_of(network).parameters()}
    last = {name for name, depth in depth_of.items() if depth == max(depth_of.values())}
    assert last == {name for name, parameter in network.named_parameters() if id(parameter) in head}
    first = next(name for name, parameter in network.named_parameters() if parameter.ndim == 4)
    assert depth_of[first] <= 1


def test_layers_below_learn_slower_by_the_given_factor():
    network = build_network("timm/test_resnet", 3, image_size_px=32)
    optimizer = build_optimizer(network, Optimize(layer_decay=0.5, learning_rate=1.0))
    depth_of = depths(network)
    scales = {id(parameter): group["lr_scale"] for group in optimizer.param_groups for parameter in group["params"]}
    for name, parameter in network.named_parameters():
        assert scales[id(parameter)] == 0.5 ** (max(depth_of.values()) - depth_of[name])


def test_with_a_frozen_backbone_nothing_but_the_head_changes():
    network = build_network("timm/test_resnet", 3, image_size_px=32)
    optimize = Optimize(freeze="backbone")
    optimizer = build_optimizer(network, optimize)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.train()
    assert freeze(network, optimize, 1)
    assert not freeze(network, optimize, 2)
    torch.autograd.backward(network(torch.randn(4, 3, 32, 32)).square().sum())
    optimizer.step()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"fc.weight", "fc.bias"}  # the statistics of the norms stay, too


@pytest.mark.parametrize("architecture", ["timm/test_resnet", "torchvision/squeezenet1_1"])
def test_gradually_more_layers_learn_until_all_do(architecture: str):
    network = build_network(architecture, 3, image_size_px=32)
    optimize, seen = Optimize(freeze="gradual", epochs=8), []
    for epoch in range(1, 9):
        freeze(network, optimize, epoch)
        seen.append(learning(network))
    assert all(earlier <= later for earlier, later in pairwise(seen))
    assert 0 < len(seen[0]) <= 2 < len(seen[2]) < len(seen[4])
    assert seen[4] == seen[-1] == {name for name, _ in network.named_parameters()}
