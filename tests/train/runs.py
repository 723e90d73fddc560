"""A small training run to take apart: spec, job, feed and state of one worker, without Ray."""

from pathlib import Path

import numpy as np
import torch

from labelmill.dataset import TrainingSet, load_training_set
from labelmill.images.transform import Preprocessing
from labelmill.spec import TrainSpec
from labelmill.train.feed.balance import oversampled
from labelmill.train.feed.feed import Feed, Share
from labelmill.train.job import Job
from labelmill.train.loop.loop import Course
from labelmill.train.loop.losses import build_objective
from labelmill.train.loop.state import State, start_state
from labelmill.train.loop.team import Team
from labelmill.train.progress import Epoch
from train.shapes import write_labels, write_shapes

ALONE = Team(0, 1, torch.device("cpu"))


def shapes_spec(folder: Path, num_pictures: int = 60, **changes: object) -> TrainSpec:
    """A multi_label spec over freshly written shapes; `changes` replace its top-level fields."""
    if not (folder / "labels.csv").exists():
        write_labels(folder / "labels.csv", write_shapes(folder / "images", num_pictures))
    return TrainSpec.model_validate(shapes_source(folder) | changes)


def shapes_source(folder: Path) -> dict[str, object]:
    return {
        "kind": "train",
        "name": "shapes",
        "registry": str(folder / "registry"),
        "task": "multi_label",
        "data": {
            "images": str(folder / "images"),
            "labels": str(folder / "labels.csv"),
            "split": {"way": "stratified", "train": 0.7, "validation": 0.15, "test": 0.15, "seed": 1},
        },
        "model": {"architecture": "timm/test_resnet", "weights": "scratch", "image_size_px": 32},
        "optimize": {"epochs": 2, "batch_size": 8, "learning_rate": 3e-3},
        "workers": {"count": 2, "cpus": 0.5},
    }


def job_of(spec: TrainSpec) -> tuple[Job, TrainingSet]:
    training_set = load_training_set(spec)
    return Job(spec, training_set.labels, f"{spec.registry}/{spec.name}/runs/one"), training_set


def feed_of(job: Job, training_set: TrainingSet, preprocessing: Preprocessing, rank: int = 0, size: int = 1) -> Feed:
    batch_size = min(job.spec.optimize.batch_size, len(training_set.train))
    share = Share.of(rank, size, batch_size)
    owned = share.of_pictures(len(training_set.train), job.spec.optimize.seed)
    return Feed(
        job.spec,
        preprocessing,
        oversampled(training_set.train, job.spec.optimize.oversample).take(owned),
        training_set.validation.take(np.arange(rank, len(training_set.validation), size)),
        share=share,
        rows=share.rows(len(training_set.train)),
        num_steps=-(-training_set.train.num_draws // batch_size),
        num_pictures=len(training_set.train) + len(training_set.validation),
        num_threads=1,
        cache_size_bytes=10**8,
    )


def course_of(job: Job, training_set: TrainingSet, feed: Feed, team: Team = ALONE) -> Course:
    return Course(job, feed, team, build_objective(job, training_set.train.targets, team.device))


def started(spec: TrainSpec) -> tuple[Course, State]:
    job, training_set = job_of(spec)
    state = start_state(job, ALONE)
    return course_of(job, training_set, feed_of(job, training_set, state.progress.preprocessing)), state


def epoch_record(number: int, curve: tuple[tuple[int, float, float], ...]) -> Epoch:
    """What is on record of an epoch, as far as curves show it."""
    return Epoch(
        number=number,
        loss=curve[-1][1],
        metric=0.5,
        learning_rate=curve[-1][2],
        pictures_per_s=100.0,
        num_workers=1,
        curve=curve,
        validation_loss=0.7,
        training_metric=0.6,
        ended_at_s=1e9 + number,
    )
