import pytest
import torch

from labelmill.errors import SpecError
from labelmill.model.network import build_network, default_preprocessing, load_weights, save_weights
from labelmill.model.pruned import _groups, prune_channels, pruned_architecture, pruned_share

PIXELS = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def silence(network, share):
    """Make the first channels of every group say nothing to anyone, in the places where pruning may look for them."""
    layers = dict(network.named_modules())
    for group in _groups(network):
        if group.consumers and not group.is_seen_elsewhere:
            width = int(share * layers[group.producers[0]].weight.shape[0])
            for name in (*group.producers, *group.followers):
                for tensor in (layers[name].weight, layers[name].bias):
                    if tensor is not None:
                        tensor[:width] = 0


def num_parameters(network):
    return sum(parameter.numel() for parameter in network.parameters())


def answers_as_before(architecture):
    """Without channels that say nothing, a network must answer as with them."""
    torch.manual_seed(0)
    network = build_network(architecture, 3, image_size_px=64).eval()
    for module in network.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            module.momentum = 1.0
    head = [module for module in network.modules() if isinstance(module, torch.nn.Linear | torch.nn.Conv2d)][-1]
    torch.nn.init.normal_(head.weight)  # some begin with zeros, and would answer the same to everything
    silence(network, 0.5)
    with torch.no_grad():  # what a deep network says dies out, unless its layers are normalised by what they see
        network.train()(PIXELS)
    network.eval()
    before = num_parameters(network)
    with torch.inference_mode():
        expected = network(PIXELS)
        prune_channels(network, 0.5)
        found = network(PIXELS)
    scale = expected.abs().max()
    assert scale > 1e-4
    torch.testing.assert_close(found / scale, expected / scale, atol=1e-4, rtol=0)
    assert num_parameters(network) < 0.8 * before
    assert all(tensor.is_contiguous() for tensor in network.state_dict().values())


# A residual block, and an inverted one with a depthwise convolution and squeeze-and-excitation.
@pytest.mark.parametrize("architecture", ["timm/resnet10t", "timm/mobilenetv3_small_050"])
def test_channels_that_say_nothing_go_without_a_trace(architecture):
    answers_as_before(architecture)


@pytest.mark.long
@pytest.mark.parametrize(
    "architecture",
    [
        "timm/deit_tiny_patch16_224",
        "timm/convnext_atto",
        "timm/resnet50",
        "timm/efficientnet_b0",
        "torchvision/resnet18",  # uses one activation in many places
        "torchvision/mobilenet_v2",
        "torchvision/vgg11_bn",
        "torchvision/efficientnet_b0",
    ],
)
def test_channels_of_other_families_go_without_a_trace(architecture):
    answers_as_before(architecture)


def test_a_pruned_network_is_built_anew_from_its_name_alone(tmp_path):
    name = pruned_architecture("timm/resnet10t", 0.5)
    assert (name, pruned_share(name)) == ("pruned-0.5:timm/resnet10t", (0.5, "timm/resnet10t"))
    assert default_preprocessing(name, 64) == default_preprocessing("timm/resnet10t", 64)
    whole = build_network("timm/resnet10t", 3, image_size_px=64)
    save_weights(whole, tmp_path / "whole.safetensors")
    pruned = build_network(name, 3, str(tmp_path / "whole.safetensors"), image_size_px=64).eval()
    assert pruned.layer1[0].conv1.out_channels == 32 < whole.layer1[0].conv1.out_channels
    torch.testing.assert_close(pruned.fc.weight, whole.fc.weight)
    save_weights(pruned, tmp_path / "pruned.safetensors")
    again = build_network(name, 3, image_size_px=64).eval()
    load_weights(again, tmp_path / "pruned.safetensors")
    torch.testing.assert_close(again(PIXELS), pruned(PIXELS))


def test_the_weightiest_channels_stay():
    network = build_network("timm/resnet10t", 3, image_size_px=64)
    block = network.layer1[0]
    with torch.no_grad():
        block.bn1.weight.fill_(1)
        block.conv2.weight[:, 8:40] *= 10  # of 64
        kept = block.conv1.weight[8:40].clone()
    prune_channels(network, 0.5)
    torch.testing.assert_close(block.conv1.weight, kept)


def test_a_network_too_narrow_to_lose_channels_is_refused():
    with pytest.raises(SpecError, match=r"nothing to prune.*Raise prune\.share"):
        prune_channels(build_network("timm/test_resnet", 3, image_size_px=64), 0.05)
