"""One trial: what a contender is given, and what it leaves behind.

A contender is `python -m field.<module> TRIAL`, TRIAL being JSON. It labels every picture of one folder and leaves
Parquet files with the columns uri and label in `output`. While it works it notes in `progress` how many pictures it
finished and when.
"""

import json
import os
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Card", "Progress", "Trial"]


@dataclass(frozen=True)
class Card:
    """The network of a benchmark, as every contender needs to know it. Lies as card.json beside network.pt."""

    architecture: str
    labels: list[str]
    image_size_px: int
    resize_px: int
    mean: list[float]
    std: list[float]

    @classmethod
    def read(cls, model: str) -> "Card":
        return cls(**json.loads(Path(model, "card.json").read_text()))


@dataclass(frozen=True)
class Trial:
    pictures: str  # a folder with nothing but pictures in it
    model: str  # a folder: card.json, network.pt (a state dict) and registry (with the same weights as a bundle)
    output: str
    progress: str
    cores: int
    count: int
    settings: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of_this_process(cls) -> "Trial":
        return cls(**json.loads(Path(sys.argv[1]).read_text()))

    @property
    def card(self) -> Card:
        return Card.read(self.model)

    def write(self, file: Path) -> None:
        file.write_text(json.dumps(asdict(self), indent=2))


class Progress:
    """Notes finished pictures, from any number of processes at once."""

    def __init__(self, trial: Trial) -> None:
        self._folder = trial.progress
        self._file: int | None = None

    def __reduce__(self) -> Any:
        raise TypeError("make one in the process that uses it")

    def done(self, count: int) -> None:
        if self._file is None:
            name = f"{os.getpid()}-{time.time_ns()}.txt"
            self._file = os.open(Path(self._folder, name), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(self._file, f"{time.time():.4f} {count}\n".encode())

    @staticmethod
    def read(folder: str) -> list[tuple[float, int]]:
        """(time in seconds since the epoch, pictures finished since the note before), in the order of time."""
        lines = [line.split() for file in Path(folder).glob("*.txt") for line in file.read_text().splitlines()]
        return sorted((float(when), int(count)) for when, count in lines)
