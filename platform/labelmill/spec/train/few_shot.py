"""How a head learns from few pictures."""

from pydantic import Field

from labelmill.spec.parts import Part, Whole

__all__ = ["FewShot"]


class FewShot(Part):
    """A head on frozen features, for 5 to 50 pictures a label: approach linear_probe or prototype."""

    views: Whole = Field(
        default=8,
        ge=0,
        le=1000,
        description="How many augmented views of each training picture the last layer learns from, beside the picture "
        "as it is.",
    )
