"""How training varies its pictures."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from labelmill.spec.parts import Fraction, Number, Part, Whole, conflict, expected

__all__ = ["PRESETS", "Augment", "ColourJitter"]

# What a preset sets; light is every field's own default.
PRESETS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "light": {},
        "medium": {
            "crop_scale": (0.35, 1.0),
            "colour": {"brightness": 0.3, "contrast": 0.3, "saturation": 0.3},
            "erase": 0.1,
        },
        "heavy": {
            "crop_scale": (0.2, 1.0),
            "policy": "trivial_augment",
            "erase": 0.25,
            "mixup": 0.2,
            "cutmix": 1.0,
        },
    }
)


def _crop_scale(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 < value[0] <= value[1] <= 1:
        raise expected("two numbers, smallest first, above 0 and at most 1, such as [0.7, 1.0]")
    return value


CropScale = Annotated[tuple[Number, Number], AfterValidator(_crop_scale)]


class ColourJitter(Part):
    """How far colours may stray: 0.3 draws a factor between 0.7 and 1.3."""

    brightness: Fraction = Field(default=0, description="Darker or lighter.")
    contrast: Fraction = Field(default=0, description="Flatter or stronger, about the picture's mean gray.")
    saturation: Fraction = Field(default=0, description="Paler or more colourful.")
    hue: Number = Field(default=0, ge=0, le=0.5, description="Share of the colour circle by which hues may turn.")


class Augment(Part):
    """How training varies a picture. Choose what leaves its labels true. A field given beside `preset` replaces the
    preset's.
    """

    preset: Literal["light", "medium", "heavy"] = Field(
        default="light",
        description="light: crops that keep 0.7 to 1 of the picture, and flips. medium: crops from 0.35, colour by 0.3 "
        "(no hue), erasing 0.1. heavy: crops from 0.2, trivial_augment, erasing 0.25, mixup 0.2, cutmix 1.",
    )
    flip: Literal["none", "horizontal", "both"] = Field(
        default="horizontal",
        description="Mirror at random: none where left and right differ (digits, text), both for views from above.",
    )
    crop_scale: CropScale = Field(
        default=(0.7, 1.0), description="Smallest and largest share of the picture's area that a random crop keeps."
    )
    rotate_deg: Number = Field(default=0, ge=0, le=180, description="Turn by up to so many degrees either way.")
    shear_deg: Number = Field(default=0, ge=0, le=45, description="Slant by up to so many degrees either way.")
    perspective: Number = Field(
        default=0, ge=0, le=0.5, description="How much smaller one edge may be drawn than the one opposite."
    )
    colour: ColourJitter = ColourJitter()
    grayscale: Fraction = Field(default=0, description="Share of the pictures that lose their colours.")
    blur: Fraction = Field(default=0, description="Share of the pictures that are blurred.")
    policy: Literal["none", "auto_augment", "rand_augment", "trivial_augment"] = Field(
        default="none", description="A published mix of geometry and colour: AutoAugment's for ImageNet, and so on."
    )
    num_operations: Whole | None = Field(
        default=None, ge=1, le=8, description="With rand_augment: operations a picture; 2 where it is absent."
    )
    magnitude: Whole | None = Field(
        default=None, ge=0, le=30, description="With rand_augment: strength of 30; 9 where it is absent."
    )
    erase: Fraction = Field(default=0, description="Share of the pictures in which a random box is erased.")
    mixup: Number = Field(
        default=0,
        ge=0,
        description="Two pictures laid over one another: alpha of the Beta law of their shares; 0 is off.",
    )
    cutmix: Number = Field(
        default=0, ge=0, description="A box of one picture pasted into another: alpha, as mixup; with both, either."
    )
    start_size: Number = Field(
        default=1,
        ge=0.25,
        le=1,
        description="Side of the pictures in the first epoch, as a share of the network's; it has grown to 1 after "
        "three quarters of the epochs. Below 1 training is faster; the network must take pictures of any size.",
    )

    @model_validator(mode="before")
    @classmethod
    def _starts_from_the_preset(cls, value: Any) -> Any:
        preset = value.get("preset") if isinstance(value, dict) else None
        return {**PRESETS.get(preset, {}), **value} if isinstance(preset, str) else value

    @model_validator(mode="after")
    def _strength_has_a_policy(self) -> Self:
        for field in ("num_operations", "magnitude"):
            if getattr(self, field) is not None and self.policy != "rand_augment":
                raise conflict(field, f"only policy rand_augment has it, and policy is {self.policy}")
        return self
