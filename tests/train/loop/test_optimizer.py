import inspect
from importlib.resources import files
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError
from timm.optim import get_optimizer_class, list_optimizers
from timm.optim._optim_factory import default_registry

from labelmill.errors import SpecError
from labelmill.spec import Optimize, optimizers
from labelmill.train.loop.optimizer import build_optimizer, load_optimizer, read_state, write_state

# What the loop sets itself, and what would change how a step is computed but not what it gives.
NOT_OPTIONS = {"params", "lr", "weight_decay", "foreach", "fused", "capturable", "differentiable", "maximize", "kwargs"}


def known_to_timm() -> str:
    """What spec/train/optimizers.txt should hold: name and options, but for those that want other libraries or a second
    backward, and for kron, whose state holds that of Python's own dice.
    """
    lines = []
    for name in sorted(list_optimizers(exclude_filters=["fused*", "bnb*", "kron*"])):
        if not default_registry.get_optimizer_info(name).second_order:
            parameters = inspect.signature(get_optimizer_class(name, bind_defaults=False)).parameters
            lines.append(" ".join([name, *sorted(set(parameters) - NOT_OPTIONS)]))
    return "\n".join(lines) + "\n"


def network() -> torch.nn.Module:
    torch.manual_seed(0)
    convolution, head = torch.nn.Conv2d(3, 4, 3), torch.nn.Linear(16, 2)
    layers = torch.nn.Sequential(convolution, torch.nn.BatchNorm2d(4), torch.nn.Flatten(), head)
    return layers.to(memory_format=torch.channels_last)


def step(layers: torch.nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    pixels = torch.randn(4, 3, 4, 4, generator=torch.Generator().manual_seed(seed))
    optimizer.zero_grad()
    torch.autograd.backward(layers(pixels).square().mean())
    torch.manual_seed(seed)  # some draw
    optimizer.step()


def weights(layers: torch.nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in layers.parameters()])


def test_the_names_that_a_spec_may_use_are_those_of_the_installed_timm():
    listed = files("labelmill.spec.train").joinpath("optimizers.txt").read_text("utf-8")
    path = "platform/labelmill/spec/train/optimizers.txt"
    assert listed == known_to_timm(), f"write known_to_timm() of {Path(__file__).name} to {path}"


@pytest.mark.parametrize(
    "name",
    ["adamw", "sgd", "lamb", "madgrad", "muon"]
    + [pytest.param(name, marks=pytest.mark.long) for name in sorted(optimizers())],
)
def test_a_stored_optimizer_takes_the_very_step_that_the_first_would_have_taken(name: str, tmp_path: Path):
    settings = Optimize(optimizer=name, learning_rate=0.01)
    first = network()
    optimizer = build_optimizer(first, settings)
    for seed in range(3):
        step(first, optimizer, seed)
    before = weights(first)
    second = network()
    second.load_state_dict(first.state_dict())
    write_state({"optimizer": optimizer.state_dict(), "none": None}, tmp_path / "rest.safetensors")
    again = build_optimizer(second, settings)
    load_optimizer(again, read_state(tmp_path / "rest.safetensors")["optimizer"])
    step(first, optimizer, 3)
    step(second, again, 3)
    assert not torch.equal(before, weights(first))
    torch.testing.assert_close(weights(second), weights(first))


def test_norms_and_biases_do_not_decay():
    groups = build_optimizer(network(), Optimize(learning_rate=0.1)).param_groups
    assert [group["weight_decay"] for group in groups] == [0.05, 0.0]
    assert {tuple(parameter.shape) for parameter in groups[0]["params"]} == {(4, 3, 3, 3), (2, 16)}
    assert len(groups[1]["params"]) == 4


def test_options_reach_the_optimizer_and_wrong_ones_are_named():
    settings = Optimize(optimizer="sgd", optimizer_options={"momentum": 0.5, "nesterov": False})
    assert build_optimizer(network(), settings).param_groups[0]["momentum"] == 0.5
    with pytest.raises(ValidationError, match="the optimizer sgd has no such option: did you mean momentum"):
        Optimize(optimizer="sgd", optimizer_options={"momentun": 0.5})
    with pytest.raises(ValidationError, match="an optimizer by timm's name"):
        Optimize(optimizer="adamW2")
    with pytest.raises(SpecError, match="do not suit the optimizer adamw: Invalid beta"):
        build_optimizer(network(), Optimize(optimizer_options={"betas": [2.0, 0.9]}))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"schedule": "cosine", "schedule_options": {"decay_rate": 0.1}}, "it takes min_lr or k_decay"),
        ({"schedule": "step"}, "the schedule step needs decay_epochs"),
        ({"schedule": "rsqrt", "warmup_epochs": 0}, "needs a warm-up"),
        ({"schedule": "constant", "schedule_options": {"min_lr": 0.1}}, "it takes none"),
        ({"layer_decay": 0.7, "freeze": "backbone"}, "only the head learns"),
        ({"optimizer_options": {"betas": {"a": 1}}}, "a list of numbers as betas"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, object], message: str):
    with pytest.raises(ValidationError, match=message):
        Optimize.model_validate(settings)
