"""Which pictures an epoch shows, told apart by their colour."""

import csv
from itertools import chain
from pathlib import Path

import pytest
from PIL import Image

from labelmill.dataset import TrainingSet
from labelmill.images.transform import Preprocessing
from labelmill.train.feed.feed import Feed
from labelmill.train.job import Job
from train.runs import feed_of, job_of, shapes_spec

NUM_PICTURES, BATCH_SIZE = 60, 6  # 48 of them to train with, so 8 steps an epoch
PREPROCESSING = Preprocessing(image_size_px=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))


@pytest.fixture
def job(tmp_path: Path) -> tuple[Job, TrainingSet]:
    (tmp_path / "images").mkdir()
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["uri", "labels"])
        for number in range(NUM_PICTURES):
            Image.new("RGB", (40, 40), (number * 4, 0, 0)).save(tmp_path / "images" / f"{number:02d}.png")
            rows.writerow([f"{number:02d}.png", "even" if number % 2 == 0 else "odd"])
    data = {"images": str(tmp_path / "images"), "labels": str(tmp_path / "labels.csv")}
    data["split"] = {"way": "stratified", "train": 0.8, "validation": 0.1, "test": 0.1}
    return job_of(shapes_spec(tmp_path, data=data, optimize={"batch_size": BATCH_SIZE}))


def batches(job: tuple[Job, TrainingSet], size: int, epoch: int, steps: range) -> list[list[int]]:
    """The numbers of the pictures that `size` workers see together at each of these steps."""
    feeds = [feed_of(*job, PREPROCESSING, rank, size) for rank in range(size)]
    parts = [colours(feed, epoch, steps) for feed in feeds]
    return [[*chain.from_iterable(together)] for together in zip(*parts, strict=True)]


def colours(feed: Feed, epoch: int, steps: range) -> list[list[int]]:
    found = [
        [round(float(picture[..., 0].mean()) / 4) for picture in pixels]
        for pixels, _ in feed.training_batches(epoch, steps.start)
    ]
    return found[: len(steps)]


def trained_with(job: tuple[Job, TrainingSet]) -> list[int]:
    return sorted(int(Path(uri).stem) for uri in job[1].train.uris.to_pylist())


def test_an_epoch_shows_every_picture_once_in_an_order_of_its_own(job: tuple[Job, TrainingSet]):
    first, second = (batches(job, 1, epoch, range(8)) for epoch in (1, 2))
    assert len(first) == 8
    assert sorted(chain(*first)) == sorted(chain(*second)) == trained_with(job)
    assert first != second
    assert first == batches(job, 1, 1, range(8))


@pytest.mark.parametrize("size", [2, 4])
def test_the_batches_are_the_same_however_many_workers_share_them(job: tuple[Job, TrainingSet], size: int):
    assert batches(job, size, 3, range(8)) == batches(job, 1, 3, range(8))


def test_an_epoch_that_other_workers_end_shows_no_picture_twice_and_leaves_none_out(job: tuple[Job, TrainingSet]):
    seen = batches(job, 3, 2, range(5)) + batches(job, 2, 2, range(5, 8))
    assert sorted(chain(*seen)) == trained_with(job)
