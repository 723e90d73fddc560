"""TensorBoard's file of a run, read as TensorBoard reads it."""

import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from labelmill.images.transform import Preprocessing
from labelmill.train.job import Job
from labelmill.train.progress import Progress
from labelmill.train.tracking.tensorboard import EVENTS_NAME, write_events
from labelmill.train.tracking.tracking import Tracking
from train.runs import epoch_record, shapes_spec


def events(data: bytes) -> Iterator[Event]:
    while data:
        (size,) = struct.unpack("<Q", data[:8])
        assert struct.unpack("<I", data[8:12])[0] == masked_crc32c(data[:8])
        content, data = data[12 : 12 + size], data[12 + size :]
        assert struct.unpack("<I", data[:4])[0] == masked_crc32c(content)
        data = data[4:]
        yield Event.FromString(content)


def curves(data: bytes) -> dict[str, list[tuple[int, float]]]:
    first, *rest = events(data)
    assert first.file_version == "brain.Event:2"
    found: dict[str, list[tuple[int, float]]] = {}
    for event in rest:
        (value,) = event.summary.value
        found.setdefault(value.tag, []).append((event.step, round(value.simple_value, 6)))
    return found


def progress_of(num_epochs: int) -> Progress:
    progress = Progress(Preprocessing(image_size_px=32, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))
    for number in range(1, num_epochs + 1):
        progress = progress.after(epoch_record(number, curve=((10, 1 / number, 0.1), (20, 0.5 / number, 0.05))), {})
    return progress


@pytest.fixture
def job(tmp_path: Path) -> Job:
    return Job(shapes_spec(tmp_path), ("blue",), str(tmp_path / "registry/shapes/runs/abc"))


def test_a_resumed_run_has_one_file_with_every_point_once_over_the_steps_of_the_whole_run(job: Job):
    Tracking(job).follow(progress_of(1))
    resumed = Tracking(job)
    resumed.follow(progress_of(1))
    resumed.follow(progress_of(1))
    resumed.follow(progress_of(3))
    folder = Path(job.run_uri)
    assert [path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()] == [EVENTS_NAME]
    found = curves((folder / EVENTS_NAME).read_bytes())
    assert found["training/loss"] == [(10, 1.0), (20, 0.5), (30, 0.5), (40, 0.25), (50, 0.333333), (60, 0.166667)]
    assert [step for step, _ in found["validation/map"]] == [20, 40, 60]
    assert found.keys() >= {"training/learning_rate", "validation/loss", "speed/pictures_per_s"}


def test_the_bundle_gets_the_curves_of_the_whole_run(job: Job, tmp_path: Path):
    tracking = Tracking(job)
    tracking.follow(progress_of(2))
    write_events(job.spec, progress_of(2), tmp_path / "draft")
    assert (tmp_path / "draft" / EVENTS_NAME).read_bytes() == (Path(job.run_uri) / EVENTS_NAME).read_bytes()
