"""How long, how fast and by which loss a network learns."""

from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from labelmill.spec.nearest import listing, nearest
from labelmill.spec.parts import Fraction, Number, Part, Seed, Whole, conflict, expected
from labelmill.spec.train.loss import Loss

__all__ = ["Optimize", "optimizers"]

# What each schedule takes beside the warm-up, by timm's names (timm.scheduler.create_scheduler_v2).
_SCHEDULE_OPTIONS: Mapping[str, tuple[str, ...]] = {
    "cosine": ("min_lr", "k_decay"),
    "tanh": ("min_lr",),
    "poly": ("min_lr", "decay_rate", "k_decay"),
    "step": ("decay_epochs", "decay_rate"),
    "multistep": ("decay_milestones", "decay_rate"),
    "wsd": ("min_lr", "decay_epochs", "decay_fn"),
    "rsqrt": ("min_lr", "decay_epochs", "decay_fn", "stable_timescale"),
    "constant": (),
}
_SCHEDULE_NEEDS = {"step": "decay_epochs", "multistep": "decay_milestones"}


@cache
def optimizers() -> Mapping[str, tuple[str, ...]]:
    """The optimizers that a spec may name, by timm's names, and the options that each takes."""
    lines = files("labelmill.spec.train").joinpath("optimizers.txt").read_text("utf-8").splitlines()
    return {name: tuple(options) for name, *options in (line.split() for line in lines)}


def _optimizer(value: str) -> str:
    if value not in optimizers():
        raise expected(
            "an optimizer by timm's name, such as adamw, sgd or lamb", suggestion=nearest(value, optimizers())
        )
    return value


def _options(value: dict[str, Any]) -> dict[str, Any]:
    for name, option in value.items():
        parts = option if isinstance(option, list | tuple) else [option]
        if not all(isinstance(part, int | float | str) for part in parts):
            raise expected(f"a number, a word, true, false or a list of numbers as {name}")
    return value


Options = Annotated[dict[str, Any], AfterValidator(_options)]


class Optimize(Part):
    """How long, how fast and by which loss the network learns."""

    epochs: Whole = Field(default=10, ge=1, description="Passes over the training pictures.")
    batch_size: Whole = Field(default=64, ge=1, description="Pictures per step, over all workers together.")
    accumulate: Whole = Field(
        default=1, ge=1, description="Pieces in which a worker computes its part of a batch, to need less memory."
    )
    learning_rate: Number = Field(default=1e-3, gt=0, description="Highest learning rate, for the whole batch.")
    optimizer: Annotated[str, AfterValidator(_optimizer)] = Field(
        default="adamw", description="By timm's name: adamw, sgd, lamb, lion, nadamw and so on."
    )
    optimizer_options: Options = Field(
        default={}, description="What this optimizer takes by timm's names, such as momentum, betas or eps."
    )
    weight_decay: Number = Field(
        default=0.05,
        ge=0,
        description="Pull towards zero, not on norms and biases. Optimizers that do not decouple it (sgd, adam) want "
        "far less, such as 1e-4.",
    )
    schedule: Literal["cosine", "tanh", "poly", "step", "multistep", "wsd", "rsqrt", "constant"] = Field(
        default="cosine", description="How the learning rate falls after the warm-up, by timm's name."
    )
    schedule_options: Options = Field(
        default={}, description="What this schedule takes by timm's names, such as min_lr, decay_epochs or decay_rate."
    )
    warmup_epochs: Number = Field(default=0.5, ge=0, description="Epochs over which the learning rate rises.")
    layer_decay: Number | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Each layer learns by this factor slower than the one above it; 0.65 to 0.9 for fine-tuning.",
    )
    freeze: Literal["none", "backbone", "gradual"] = Field(
        default="none",
        description="What stays as it was: backbone: all but the head; gradual: all but the head at first, then layer "
        "after layer learns, too, the last first, and all of them from the middle of the run on.",
    )
    patience: Whole | None = Field(
        default=None, ge=1, description="Stop after so many epochs without a better validation metric."
    )
    ema_decay: Number | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Publish a moving average of the weights, of which each step replaces 1 - ema_decay; the decay "
        "rises to this from 0 in the first steps. 0.999 to 0.9999.",
    )
    max_gradient_norm: Number | None = Field(
        default=None, gt=0, description="Gradients longer than this, all together, are shortened to it."
    )
    gradient_checkpointing: bool = Field(
        default=False, description="Compute activations twice instead of keeping them: less memory, a third more time."
    )
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto",
        description="What the network computes in; auto: bfloat16 on a GPU that has it, float16 on an older one, "
        "float32 on a CPU.",
    )
    loss: Loss = Loss()
    oversample: Fraction = Field(
        default=0.0,
        description="How far rare labels are drawn more often: 0 not at all, 0.5 by the square root of how much rarer, "
        "1 as often as the most common one. An epoch stays as long.",
    )
    seed: Seed = Field(default=0, description="Of the initial weights, the order and the augmentation.")

    @model_validator(mode="after")
    def _warms_up_in_time(self) -> Self:
        if self.warmup_epochs > self.epochs:
            raise conflict("warmup_epochs", f"expected at most epochs ({self.epochs}), got {self.warmup_epochs:g}")
        return self

    @model_validator(mode="after")
    def _options_belong(self) -> Self:
        _check_options("optimizer", self.optimizer, self.optimizer_options, optimizers()[self.optimizer])
        _check_options("schedule", self.schedule, self.schedule_options, _SCHEDULE_OPTIONS[self.schedule])
        needed = _SCHEDULE_NEEDS.get(self.schedule)
        if needed and needed not in self.schedule_options:
            raise conflict("schedule_options", f"the schedule {self.schedule} needs {needed}, and it is not there")
        if self.schedule == "rsqrt" and not self.warmup_epochs and "stable_timescale" not in self.schedule_options:
            raise conflict("warmup_epochs", "the schedule rsqrt needs a warm-up, or schedule_options.stable_timescale")
        return self

    @model_validator(mode="after")
    def _layers_that_learn(self) -> Self:
        if self.layer_decay is not None and self.freeze == "backbone":
            raise conflict("layer_decay", "only the head learns with freeze: backbone: leave one of them out")
        return self


def _check_options(kind: str, name: str, options: Mapping[str, Any], known: tuple[str, ...]) -> None:
    for option in options:
        if option not in known:
            near = nearest(option, known)
            hint = f": did you mean {near}?" if near else f": it takes {listing(known)}" if known else ": it takes none"
            raise conflict(f"{kind}_options.{option}", f"the {kind} {name} has no such option{hint}")
