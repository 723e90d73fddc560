"""The search for better values of a training spec: what is varied, how often, and what each trial therefore is."""

import math
import random
from collections import deque
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, ValidationError, WithJsonSchema, model_validator

from labelmill.spec.nearest import listing, nearest
from labelmill.spec.parts import Part, Seed, Whole, conflict, expected

if TYPE_CHECKING:
    from labelmill.spec.train.train import TrainSpec

__all__ = ["Interval", "Tune", "check_trials", "trial_specs"]

# What a search may vary: what the data, the bundle and the place of a run are stays the same for all trials.
_SEARCHED = ("augment", "distill", "model", "optimize")
_FIXED = ("optimize.epochs", "model.weights")
_PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)


def _bound(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise expected("a number")
    return value


# As it was written: a range between two whole numbers holds whole numbers.
Bound = Annotated[Any, AfterValidator(_bound), WithJsonSchema({"type": "number"})]


class Interval(Part):
    """Every number between two; whole ones when both of these are."""

    min: Bound = Field(description="The smallest value.")
    max: Bound = Field(description="The largest value.")
    scale: Literal["linear", "log"] = Field(
        default="linear", description="log: as many trials between 0.001 and 0.01 as between 0.01 and 0.1."
    )

    @model_validator(mode="after")
    def _is_a_range(self) -> Self:
        if self.min >= self.max:
            raise conflict("min", f"expected less than max ({self.max:g}), got {self.min:g}")
        if self.scale == "log" and self.min <= 0:
            raise conflict("min", f"expected a number above 0 with scale: log, got {self.min:g}")
        return self

    def at(self, share: float) -> float:
        """The value at this share, 0 to 1, of the way."""
        low, high = (math.log(self.min), math.log(self.max)) if self.scale == "log" else (self.min, self.max)
        value = low + share * (high - low)
        value = math.exp(value) if self.scale == "log" else value
        whole = isinstance(self.min, int) and isinstance(self.max, int)
        # To the digits that a person would write: the report shows them, and they can be written into a spec.
        inside: float = min(max(round(value) if whole else float(f"{value:.4g}"), self.min), self.max)
        return inside


def _choices(value: Any) -> Any:
    if not isinstance(value, list | tuple) or len(value) < 2:
        raise expected("a list of two values or more, or a range such as {min: 1.0e-5, max: 1.0e-2, scale: log}")
    return tuple(value)


def _range_or_list(value: Any) -> str:
    return "<range>" if isinstance(value, dict | Interval) else "<list>"


_LIST_SCHEMA = {"type": "array", "minItems": 2, "items": {}}
Choices = Annotated[Any, AfterValidator(_choices), WithJsonSchema(_LIST_SCHEMA)]
Values = Annotated[
    Annotated[Interval, Tag("<range>")] | Annotated[Choices, Tag("<list>")], Discriminator(_range_or_list)
]


def _search(value: dict[str, Any]) -> dict[str, Any]:
    if not 1 <= len(value) <= len(_PRIMES):
        example = "optimize.learning_rate: {min: 1.0e-5, max: 1.0e-2, scale: log}"
        raise expected(f"at least one field and its values, such as {example}, and at most {len(_PRIMES)}")
    return value


class Tune(Part):
    """Train with many settings, stop those that fall behind, and publish the best.

    The first trial is the spec as it is written; the others take their values from a Halton sequence, which covers the
    ranges more evenly than chance does (Bergstra & Bengio, 2012). Weak ones are stopped early by asynchronous
    successive halving (ASHA; Li et al., 2020).
    """

    search: Annotated[dict[str, Values], AfterValidator(_search)] = Field(
        description="Field, such as optimize.learning_rate, and its values: a list, or {min, max, scale}.",
    )
    trials: Whole = Field(default=16, ge=2, le=1000, description="How many settings are tried.")
    min_epochs: Whole = Field(default=1, ge=1, description="Epochs that every trial gets before it may be stopped.")
    reduction: Whole = Field(
        default=3, ge=2, description="One trial in so many goes on at each look; each look comes so many times as late."
    )
    seed: Seed = Field(default=0, description="The same seed tries the same settings.")


def trial_specs(spec: "TrainSpec") -> Iterator[tuple[dict[str, Any], "TrainSpec"]]:
    """Each trial's values by field, and its spec: `spec` with these values and nothing to search.

    ValidationError: the values do not fit the field, or one another.
    """
    tune = spec.tune
    assert tune is not None
    yield {field: _value(spec, field) for field in tune.search}, _with_values(spec, {})
    generator = random.Random(tune.seed)
    shifts = [generator.random() for _ in tune.search]
    for index in range(1, tune.trials):
        values = {
            field: _pick(among, (_radical_inverse(index, prime) + shift) % 1)
            for (field, among), prime, shift in zip(tune.search.items(), _PRIMES, shifts, strict=False)
        }
        yield values, _with_values(spec, values)


def check_trials(spec: "TrainSpec") -> None:
    """Raise what pydantic shows when a trial would not be a valid spec."""
    assert spec.tune is not None
    for field in spec.tune.search:
        _check_field(spec, field)
    if spec.tune.min_epochs > spec.optimize.epochs:
        message = f"expected at most optimize.epochs ({spec.optimize.epochs}), got {spec.tune.min_epochs}"
        raise conflict("tune.min_epochs", message)
    try:
        deque(trial_specs(spec), maxlen=0)
    except ValidationError as exc:
        first = exc.errors(include_url=False)[0]
        where = ".".join(str(step) for step in first["loc"] if not str(step).startswith("<"))
        raise conflict("tune.search", f"not every trial is a valid spec: {where}: {first['msg']}") from exc


def _check_field(spec: "TrainSpec", field: str) -> None:
    root, *inner = field.split(".")
    if root not in _SEARCHED or not inner or field in _FIXED:
        what = f"a field of {listing(_SEARCHED)}, such as optimize.learning_rate"
        instead = " (every trial has all of them to spend)" if field == "optimize.epochs" else ""
        raise conflict("tune.search", f"expected {what}, got {field}{instead}")
    holder: Any = spec
    for step in field.split("."):
        names = list(type(holder).model_fields) if isinstance(holder, Part) else []
        if step not in names:
            near = nearest(step, names)
            raise conflict("tune.search", f"{field}: no such field{f': did you mean {near}?' if near else ''}")
        holder = getattr(holder, step)


def _value(spec: "TrainSpec", field: str) -> Any:
    value: Any = spec
    for step in field.split("."):
        value = getattr(value, step)
    return value


def _with_values(spec: "TrainSpec", values: Mapping[str, Any]) -> "TrainSpec":
    data = spec.model_dump(exclude_unset=True, exclude={"tune"})
    for field, value in values.items():
        *parents, last = field.split(".")
        holder = data
        for step in parents:
            holder = holder.setdefault(step, {})
        holder[last] = value
    return type(spec).model_validate(data)


def _pick(among: Any, share: float) -> Any:
    return among.at(share) if isinstance(among, Interval) else among[int(share * len(among))]


def _radical_inverse(index: int, base: int) -> float:
    """Halton's sequence (1960): the digits of `index` in this base, mirrored behind the point."""
    result, fraction = 0.0, 1.0
    while index:
        fraction /= base
        result += fraction * (index % base)
        index //= base
    return result
