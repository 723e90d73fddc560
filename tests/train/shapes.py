"""Pictures a tiny network learns in seconds: coloured shapes on a noisy ground."""

import csv
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

LABELS = ("blue", "green", "red")
_COLOURS = {"red": (220, 40, 40), "green": (40, 190, 60), "blue": (50, 70, 230)}


def write_shapes(folder: Path, num_pictures: int, *, seed: int = 0, one_label: bool = False) -> dict[str, list[str]]:
    """Write JPEGs of 40 x 40 px under `folder` and return file name -> labels, the colours to be seen in it."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    labels: dict[str, list[str]] = {}
    for number in range(num_pictures):
        chosen = [LABELS[number % 3]] if one_label else [name for name in LABELS if rng.random() < 0.4]
        picture = Image.fromarray(rng.integers(90, 160, (40, 40, 3), dtype=np.uint8))
        draw = ImageDraw.Draw(picture)
        for name in chosen:
            x, y, size = *rng.integers(0, 24, 2), rng.integers(10, 16)
            shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
            shape((int(x), int(y), int(x + size), int(y + size)), fill=_COLOURS[name])
        name = f"{number:04d}.jpg"
        picture.save(folder / name, quality=92)
        labels[name] = chosen
    return labels


def write_labels(path: Path, labels: dict[str, list[str]]) -> None:
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["uri", "labels"])
        rows.writerows([name, ";".join(words)] for name, words in labels.items())
