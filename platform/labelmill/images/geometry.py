"""Turning, slanting and tilting a picture, in one bilinear pass of Pillow's."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from labelmill.spec import Augment

__all__ = ["Colour", "moved"]

Colour = tuple[int, int, int]


def moved(picture: Image.Image, augment: Augment, ground: Colour, rng: np.random.Generator) -> Image.Image:
    """The picture turned, slanted and tilted about its centre as far as `augment` allows; `ground` shows beside it."""
    turn, slant, tilt_x, tilt_y = 2 * rng.random(4) - 1
    if not (augment.rotate_deg or augment.shear_deg or augment.perspective):
        return picture
    linear = _rotation(math.radians(turn * augment.rotate_deg))
    linear = linear @ np.array([[1, math.tan(math.radians(slant * augment.shear_deg))], [0, 1]])
    # How far a point of the result lies away: 1 in the centre, and up to perspective / 2 more or less at an edge.
    away = np.array([tilt_x / picture.width, tilt_y / picture.height]) * augment.perspective
    centre = np.array([picture.width / 2, picture.height / 2])
    to_source = np.block([[linear, np.zeros((2, 1))], [away, np.ones(1)]])
    to_source = _shift(centre) @ to_source @ _shift(-centre)
    coefficients = (to_source / to_source[2, 2]).ravel()[:8]
    return picture.transform(
        picture.size,
        Image.Transform.PERSPECTIVE,
        coefficients.tolist(),
        resample=Image.Resampling.BILINEAR,
        fillcolor=ground,
    )


def _rotation(angle: float) -> NDArray[np.float64]:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])


def _shift(by: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.array([[1, 0, by[0]], [0, 1, by[1]], [0, 0, 1]])
