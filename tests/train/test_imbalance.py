"""A label at 2% of the pictures: what is there against imbalance must find more of them than the plain loss does."""

import csv
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw

from labelmill.spec import TrainSpec
from labelmill.train.loop.loop import to_device, train
from train.runs import shapes_source, started

COLOURS = {"red": (205, 60, 60), "orange": (205, 110, 50), "yellow": (200, 190, 60), "green": (60, 180, 80)}
RARE = "orange"
TRAIN = {"red": 327, "yellow": 327, "green": 326, RARE: 20}
SEEDS = (1, 2, 3)
REMEDIES: Mapping[str, Mapping[str, object]] = {
    "focal": {"loss": {"name": "focal", "gamma": 2.0}},
    "class weights, inverse": {"loss": {"class_weights": "inverse"}},
    "class weights, effective number": {"loss": {"class_weights": "effective_number", "beta": 0.999}},
    "oversampling": {"oversample": 1.0},
}


def write_pictures(folder: Path) -> None:
    """1,000 training pictures, of which 20 have the rare colour, and 80 of each colour to validate on."""
    rng = np.random.default_rng(0)
    (folder / "images").mkdir()
    with (folder / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["uri", "labels", "split"])
        for split, counts in (("train", TRAIN), ("validation", dict.fromkeys(TRAIN, 80))):
            for label, count in counts.items():
                for number in range(count):
                    name = f"{split}-{label}-{number}.png"
                    picture(COLOURS[label], rng).save(folder / "images" / name)
                    rows.writerow([name, label, split])


def picture(colour: tuple[int, int, int], rng: np.random.Generator) -> Image.Image:
    ground = Image.fromarray(rng.integers(70, 180, (32, 32, 3), dtype=np.uint8))
    shade = tuple(int(value) for value in np.clip(colour + rng.normal(0, 12, 3), 0, 255))
    left, top, size = (int(value) for value in (*rng.integers(0, 20, 2), rng.integers(8, 13)))
    ImageDraw.Draw(ground).rectangle((left, top, left + size, top + size), fill=shade)
    return ground


def recall_of_the_rare(folder: Path, seed: int, settings: Mapping[str, object]) -> float:
    optimize = {"epochs": 3, "batch_size": 32, "learning_rate": 2e-3, "seed": seed, **settings}
    source = shapes_source(folder) | {"task": "multi_class", "optimize": optimize}
    course, state = started(TrainSpec.model_validate(source))
    train(course, state, lambda state: None)
    column, answered, there = course.job.labels.index(RARE), [], []
    with torch.inference_mode():
        for batch in course.feed.validation_batches():
            pixels, targets = to_device(batch, state.progress.preprocessing, course.team.device)
            answered.append(state.network.eval()(pixels).argmax(dim=1) == column)
            there.append(targets[:, column] == 1)
    return float(torch.cat(answered)[torch.cat(there)].float().mean())


@pytest.mark.long
def test_each_remedy_finds_more_of_a_rare_label_than_the_plain_loss(tmp_path: Path):
    torch.set_num_threads(1)
    write_pictures(tmp_path)
    plain = [recall_of_the_rare(tmp_path, seed, {}) for seed in SEEDS]
    found = {
        name: [recall_of_the_rare(tmp_path, seed, settings) for seed in SEEDS] for name, settings in REMEDIES.items()
    }
    print(f"plain {np.round(plain, 3)}", *(f"{name} {np.round(values, 3)}" for name, values in found.items()), sep="\n")
    for name, values in found.items():
        assert np.mean(values) > np.mean(plain) + 0.1, name
