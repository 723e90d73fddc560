"""What a wrong answer costs while a network learns."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Discriminator, Field, Tag, model_validator

from labelmill.spec.nearest import listing, nearest
from labelmill.spec.parts import Number, Part, conflict, expected

__all__ = ["Loss"]

_CLASS_RULES = ("none", "inverse", "effective_number")
_POSITIVE_RULES = ("none", "balanced")
_OWN_FIELDS = {
    "focal": ("gamma",),
    "asymmetric": ("gamma_positive", "gamma_negative", "margin"),
}


def _rule(rules: tuple[str, ...]) -> AfterValidator:
    def check(value: str) -> str:
        if value not in rules:
            raise expected(f"{listing(rules)}, or a mapping of labels to weights", suggestion=nearest(value, rules))
        return value

    return AfterValidator(check)


def _rule_or_mapping(value: Any) -> str:
    return "<mapping>" if isinstance(value, dict) else "<rule>"


Weight = Annotated[Number, Field(gt=0)]
ByLabel = Annotated[dict[str, Weight], Tag("<mapping>")]
ClassWeights = Annotated[
    Annotated[str, _rule(_CLASS_RULES), Field(json_schema_extra={"enum": list(_CLASS_RULES)}), Tag("<rule>")] | ByLabel,
    Discriminator(_rule_or_mapping),
]
PositiveWeights = Annotated[
    Annotated[str, _rule(_POSITIVE_RULES), Field(json_schema_extra={"enum": list(_POSITIVE_RULES)}), Tag("<rule>")]
    | ByLabel,
    Discriminator(_rule_or_mapping),
]


class Loss(Part):
    """What a wrong answer costs, and how much more it costs with a rare label."""

    name: Literal["cross_entropy", "focal", "asymmetric"] = Field(
        default="cross_entropy",
        description="cross_entropy (of each label for binary and multi_label); focal: what is hard counts more; "
        "asymmetric, for binary and multi_label: the many labels that are absent and easily seen to be count less.",
    )
    gamma: Number = Field(default=2.0, ge=0, le=10, description="Of focal: how fast an easy picture's cost falls.")
    gamma_positive: Number = Field(default=0.0, ge=0, le=10, description="Of asymmetric: the same, for present labels.")
    gamma_negative: Number = Field(default=4.0, ge=0, le=10, description="Of asymmetric: the same, for absent labels.")
    margin: Number = Field(
        default=0.05,
        ge=0,
        lt=1,
        description="Of asymmetric: an absent label up to this confidence costs nothing.",
    )
    label_smoothing: Number = Field(
        default=0.0, ge=0, lt=1, description="Share of a target that is spread over all labels, against overconfidence."
    )
    class_weights: ClassWeights = Field(
        default="none",
        description="What a label counts: inverse to its pictures, by their effective number, or a mapping of labels "
        "to weights (1 where it names none). Rules are scaled so that a training picture counts 1 on average.",
    )
    beta: Number = Field(
        default=0.999, gt=0, lt=1, description="Of effective_number: near 1 it weighs like inverse, near 0 not at all."
    )
    positive_weights: PositiveWeights = Field(
        default="none",
        description="For binary and multi_label, what a present label counts against an absent one: balanced (as many "
        "times as there are more pictures without it), or a mapping of labels to weights.",
    )

    @model_validator(mode="after")
    def _takes_only_its_own(self) -> Self:
        for owner, fields in _OWN_FIELDS.items():
            for field in fields:
                if field in self.model_fields_set and self.name != owner:
                    raise conflict(field, f"only the loss {owner} has it, and name is {self.name}")
        if "beta" in self.model_fields_set and self.class_weights != "effective_number":
            raise conflict("beta", "only class_weights: effective_number has it")
        return self
