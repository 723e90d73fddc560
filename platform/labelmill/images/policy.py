"""Published mixes of geometry and colour: AutoAugment, RandAugment, TrivialAugment.

The operations, their ranges and AutoAugment's policy are those of torchvision.transforms.v2, and a test compares them.
What differs: moves are bilinear and a share of the side, and the numbers come from the caller's generator.
"""

from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image, ImageEnhance, ImageOps

from labelmill.images.geometry import Colour
from labelmill.spec import Augment

__all__ = ["OPERATIONS", "apply_operation", "by_policy"]

_ENHANCERS: Mapping[str, Callable[[Image.Image], ImageEnhance._Enhance]] = {
    "brightness": ImageEnhance.Brightness,
    "saturation": ImageEnhance.Color,
    "contrast": ImageEnhance.Contrast,
    "sharpness": ImageEnhance.Sharpness,
}
# The strongest of each operation: the tangent of a shear, the share of the side of a move, degrees, the distance from
# factor 1, bits lost, the share of the levels above the threshold. What is left out has no strength.
_NARROW = (
    {"shear_x": 0.3, "shear_y": 0.3, "translate_x": 150 / 331, "translate_y": 150 / 331, "rotate": 30.0}
    | dict.fromkeys(_ENHANCERS, 0.9)
    | {"posterize": 4.0, "solarize": 1.0}
)
_WIDE = (
    {"shear_x": 0.99, "shear_y": 0.99, "translate_x": 32 / 224, "translate_y": 32 / 224, "rotate": 135.0}
    | dict.fromkeys(_ENHANCERS, 0.99)
    | {"posterize": 6.0, "solarize": 1.0}
)
_ONE_SIGN = ("posterize", "solarize")
OPERATIONS = ("identity", *_NARROW, "auto_contrast", "equalize")  # AutoAugment has invert too
_MAX_MAGNITUDE = 30
# Cubuk et al., AutoAugment: Learning Augmentation Strategies from Data, 2019, table 9: operation, probability,
# magnitude of 9; each line is one sub-policy.
_IMAGENET = (
    (("posterize", 0.4, 8), ("rotate", 0.6, 9)),
    (("solarize", 0.6, 5), ("auto_contrast", 0.6, 0)),
    (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
    (("posterize", 0.6, 7), ("posterize", 0.6, 6)),
    (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
    (("equalize", 0.4, 0), ("rotate", 0.8, 8)),
    (("solarize", 0.6, 3), ("equalize", 0.6, 0)),
    (("posterize", 0.8, 5), ("equalize", 1.0, 0)),
    (("rotate", 0.2, 3), ("solarize", 0.6, 8)),
    (("equalize", 0.6, 0), ("posterize", 0.4, 6)),
    (("rotate", 0.8, 8), ("saturation", 0.4, 0)),
    (("rotate", 0.4, 9), ("equalize", 0.6, 0)),
    (("equalize", 0.0, 0), ("equalize", 0.8, 0)),
    (("invert", 0.6, 0), ("equalize", 1.0, 0)),
    (("saturation", 0.6, 4), ("contrast", 1.0, 8)),
    (("rotate", 0.8, 8), ("saturation", 1.0, 2)),
    (("saturation", 0.8, 8), ("solarize", 0.8, 7)),
    (("sharpness", 0.4, 7), ("invert", 0.6, 0)),
    (("shear_x", 0.6, 5), ("equalize", 1.0, 0)),
    (("saturation", 0.4, 0), ("equalize", 0.6, 0)),
    (("equalize", 0.4, 0), ("solarize", 0.2, 4)),
    (("solarize", 0.6, 5), ("auto_contrast", 0.6, 0)),
    (("invert", 0.6, 0), ("equalize", 1.0, 0)),
    (("saturation", 0.6, 4), ("contrast", 1.0, 8)),
    (("equalize", 0.8, 0), ("equalize", 0.6, 0)),
)


def by_policy(picture: Image.Image, augment: Augment, ground: Colour, rng: np.random.Generator) -> Image.Image:
    """The picture after the operations that `augment.policy` draws; `ground` shows beside what is moved.

    RandAugment: Cubuk et al., 2020. TrivialAugment, in its wide space: Müller and Hutter, 2021.
    """
    match augment.policy:
        case "auto_augment":
            for name, probability, magnitude in _IMAGENET[rng.integers(len(_IMAGENET))]:
                if rng.random() < probability:
                    picture = _drawn(picture, name, magnitude / 9, _NARROW, ground, rng)
        case "rand_augment":
            share = (9 if augment.magnitude is None else augment.magnitude) / _MAX_MAGNITUDE
            for _ in range(augment.num_operations or 2):
                picture = _drawn(picture, _any(rng), share, _NARROW, ground, rng)
        case "trivial_augment":
            share = rng.integers(_MAX_MAGNITUDE + 1) / _MAX_MAGNITUDE
            picture = _drawn(picture, _any(rng), share, _WIDE, ground, rng)
    return picture


def apply_operation(picture: Image.Image, name: str, strength: float, ground: Colour) -> Image.Image:
    """One operation at a strength whose unit is the operation's own."""
    if name in _ENHANCERS:
        return _ENHANCERS[name](picture).enhance(1 + strength)
    match name:
        case "shear_x":
            return _affine(picture, (1, strength, 0, 0, 1, 0), ground)
        case "shear_y":
            return _affine(picture, (1, 0, 0, strength, 1, 0), ground)
        case "translate_x":
            return _affine(picture, (1, 0, -int(strength * picture.width), 0, 1, 0), ground)
        case "translate_y":
            return _affine(picture, (1, 0, 0, 0, 1, -int(strength * picture.height)), ground)
        case "rotate":
            return picture.rotate(strength, Image.Resampling.BILINEAR, fillcolor=ground)
        case "posterize":
            return ImageOps.posterize(picture, 8 - round(strength))
        case "solarize":
            return ImageOps.solarize(picture, 255 * (1 - strength))  # type: ignore[arg-type]  # any number will do
        case "auto_contrast":
            return ImageOps.autocontrast(picture)
        case "equalize":
            return ImageOps.equalize(picture)
        case "invert":
            return ImageOps.invert(picture)
    assert name == "identity", name
    return picture


def _any(rng: np.random.Generator) -> str:
    return OPERATIONS[rng.integers(len(OPERATIONS))]


def _drawn(
    picture: Image.Image,
    name: str,
    share: float,
    strongest: Mapping[str, float],
    ground: Colour,
    rng: np.random.Generator,
) -> Image.Image:
    """The operation at a share of its strongest, to either side where it has two."""
    sign = -1 if name not in _ONE_SIGN and rng.random() < 0.5 else 1
    return apply_operation(picture, name, sign * share * strongest.get(name, 0), ground)


def _affine(picture: Image.Image, to_source: tuple[float, ...], ground: Colour) -> Image.Image:
    return picture.transform(
        picture.size, Image.Transform.AFFINE, to_source, resample=Image.Resampling.BILINEAR, fillcolor=ground
    )
