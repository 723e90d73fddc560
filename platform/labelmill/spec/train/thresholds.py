"""From which confidence on a label is given."""

from collections.abc import Mapping
from typing import Self

from pydantic import Field, model_validator

from labelmill.spec.parts import Fraction, Number, Part, conflict

__all__ = ["ThresholdRule", "ThresholdRules"]


class ThresholdRule(Part):
    """What a threshold is chosen for, on the validation pictures; without any field: the best F1."""

    min_precision: Fraction | None = Field(
        default=None, gt=0, description="As many pictures as possible while at least this share of them is right."
    )
    min_recall: Fraction | None = Field(
        default=None,
        gt=0,
        description="As few wrong pictures as possible while at least this share of the right is found.",
    )
    false_positive_cost: Number | None = Field(
        default=None,
        gt=0,
        description="What a label costs that is given wrongly; with false_negative_cost: least cost.",
    )
    false_negative_cost: Number | None = Field(
        default=None, gt=0, description="What a label costs that is missed; with false_positive_cost: least cost."
    )
    value: Fraction | None = Field(default=None, description="This threshold, whatever the validation pictures say.")

    @model_validator(mode="after")
    def _is_one_rule(self) -> Self:
        costs = (self.false_positive_cost, self.false_negative_cost)
        if (costs[0] is None) != (costs[1] is None):
            missing = "false_positive_cost" if costs[0] is None else "false_negative_cost"
            raise conflict(missing, "required beside the other cost: a threshold weighs the two against each other")
        fields = ("min_precision", "min_recall", "false_positive_cost", "value")
        given = [field for field in fields if getattr(self, field) is not None]
        if len(given) > 1:
            raise conflict(given[1], f"a threshold follows one rule, and {given[0]} is another: remove one of them")
        return self


class ThresholdRules(ThresholdRule):
    """How the threshold of each label is chosen: one rule for all, and others for some."""

    labels: Mapping[str, ThresholdRule] = Field(default={}, description="Rules of single labels: {cat: {value: 0.8}}.")

    def rule(self, label: str) -> ThresholdRule:
        """The rule that counts for a label."""
        return self.labels.get(label, self)
