"""The architectures that a spec may name, and what they cost.

The table is made by `python -m labelmill.model.architectures`, so that nobody who only reads it imports torch.
"""

import csv
from fnmatch import fnmatchcase
from functools import cache
from importlib.resources import files
from typing import NamedTuple

__all__ = ["Architecture", "architecture_table", "architectures", "find_architectures"]


class Architecture(NamedTuple):
    """`num_multiply_adds` is of one picture's forward pass at the architecture's own `image_size_px`; None where it
    could not be counted. `pretrained`: whether its library has weights to start from."""

    name: str
    num_parameters: int
    image_size_px: int
    num_multiply_adds: int | None
    pretrained: bool


@cache
def architecture_table() -> tuple[Architecture, ...]:
    """Every architecture, sorted by name, timm's first."""
    with files("labelmill.spec.train").joinpath("architectures.csv").open(encoding="utf-8") as lines:
        return tuple(
            Architecture(
                row["name"],
                int(row["num_parameters"]),
                int(row["image_size_px"]),
                int(row["num_multiply_adds"]) if row["num_multiply_adds"] else None,
                row["pretrained"] == "True",
            )
            for row in csv.DictReader(lines)
        )


@cache
def architectures() -> frozenset[str]:
    """The architectures that a spec may name: `timm/<name>` and `torchvision/<name>`."""
    return frozenset(row.name for row in architecture_table())


def find_architectures(
    *words: str,
    max_parameters: float | None = None,
    max_multiply_adds: float | None = None,
    image_size_px: int | None = None,
    pretrained: bool = False,
) -> list[Architecture]:
    """The rows whose names hold every word (`*` and `?` stand for any text and any letter) and that keep to the limits;
    one whose multiply-adds are not known keeps to no limit of them."""

    def fits(row: Architecture) -> bool:
        return (
            all(fnmatchcase(row.name, f"*{word.lower()}*") for word in words)
            and (max_parameters is None or row.num_parameters <= max_parameters)
            and (
                max_multiply_adds is None
                or (row.num_multiply_adds is not None and row.num_multiply_adds <= max_multiply_adds)
            )
            and (image_size_px is None or row.image_size_px == image_size_px)
            and (row.pretrained or not pretrained)
        )

    return [row for row in architecture_table() if fits(row)]
