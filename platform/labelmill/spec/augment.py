"""How training varies its pictures."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from labelmill.spec.parts import Number, Part, expected

__all__ = ["Augment"]


def _crop_scale(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 < value[0] <= value[1] <= 1:
        raise expected("two numbers, smallest first, above 0 and at most 1, such as [0.7, 1.0]")
    return value


CropScale = Annotated[tuple[Number, Number], AfterValidator(_crop_scale)]


class Augment(Part):
    """How training varies a picture. Choose what leaves its labels true."""

    flip: Literal["none", "horizontal", "both"] = Field(
        default="horizontal",
        description="Mirror at random: none where left and right differ (digits, text), both for views from above.",
    )
    crop_scale: CropScale = Field(
        default=(0.7, 1.0), description="Smallest and largest share of the picture's area that a random crop keeps."
    )
