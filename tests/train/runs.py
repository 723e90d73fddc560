"""A small training run to take apart: spec, job, feed and state of one worker, without Ray."""

from pathlib import Path

import numpy as np
import torch

from labelmill.dataset import TrainingSet, load_training_set
from labelmill.spec import TrainSpec
from labelmill.train.feed import Feed, Share
from labelmill.train.job import Job
from labelmill.train.state import State, start_state
from labelmill.train.team import Team
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
            "split": {"train": 0.7, "validation": 0.15, "test": 0.15, "seed": 1},
        },
        "model": {"architecture": "timm/test_resnet", "weights": "scratch", "image_size_px": 32},
        "optimize": {"epochs": 2, "batch_size": 8, "learning_rate": 3e-3},
        "workers": {"count": 2, "cpus": 0.5},
    }


def job_of(spec: TrainSpec) -> tuple[Job, TrainingSet]:
    training_set = load_training_set(spec)
    return Job(spec, training_set.labels, f"{spec.registry}/{spec.name}/runs/one"), training_set


def feed_of(job: Job, training_set: TrainingSet, state: State, rank: int = 0, size: int = 1) -> Feed:
    batch_size = min(job.spec.optimize.batch_size, len(training_set.train))
    share = Share.of(rank, size, batch_size)
    return Feed(
        job.spec,
        state.progress.preprocessing,
        training_set.train.take(share.of_pictures(len(training_set.train), job.spec.optimize.seed)),
        training_set.validation.take(np.arange(rank, len(training_set.validation), size)),
        share=share,
        num_steps=-(-training_set.train.num_draws // batch_size),
        num_pictures=len(training_set.train) + len(training_set.validation),
        num_threads=1,
        cache_size_bytes=10**8,
    )


def started(spec: TrainSpec) -> tuple[Job, State, Feed]:
    job, training_set = job_of(spec)
    state = start_state(job, ALONE)
    return job, state, feed_of(job, training_set, state)
