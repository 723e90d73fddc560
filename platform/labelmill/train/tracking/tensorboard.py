"""TensorBoard's files, written as its readers expect them: a record a value."""

import struct
from collections.abc import Iterable, Sequence
from pathlib import Path

from labelmill.model.bundle import Bundle
from labelmill.spec import TrainSpec
from labelmill.storage import open_store
from labelmill.train.progress import Progress
from labelmill.train.tracking.curves import Point, curve_points

__all__ = ["EVENTS_NAME", "TensorBoard", "event_file", "write_events"]

# TensorBoard takes a file for its own when it finds `tfevents` in the name.
EVENTS_NAME = "tensorboard/events.out.tfevents.0.labelmill"


def event_file(points: Iterable[Point]) -> bytes:
    """The file that shows these points."""
    from tensorboardX.proto.event_pb2 import Event

    first = Event(wall_time=0.0, file_version="brain.Event:2")
    return _record(first.SerializeToString()) + _records(points)


def write_events(spec: TrainSpec, progress: Progress, folder: Path) -> None:
    """The curves of a whole run, as a file of a bundle."""
    path = folder / EVENTS_NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(event_file(curve_points(spec, progress)))


class TensorBoard:
    """`tensorboard/` in a run's folder, whole after every epoch: a store has no appending."""

    def __init__(self, run_uri: str) -> None:
        self._store = open_store(run_uri)
        self._data = event_file(())
        self.last_step = 0

    def log(self, points: Sequence[Point]) -> None:
        data = self._data + _records(points)
        self._store.write(EVENTS_NAME, data)
        self._data, self.last_step = data, points[-1].step

    def finish(self, bundle: Bundle) -> None:
        """The bundle has a file of its own."""

    def end(self, status: str) -> None:
        """The curves end where the run did."""


def _records(points: Iterable[Point]) -> bytes:
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.proto.summary_pb2 import Summary

    def event(point: Point) -> bytes:
        value = Summary.Value(tag=point.name, simple_value=point.value)
        content = Event(wall_time=point.at_s, step=point.step, summary=Summary(value=[value])).SerializeToString()
        return bytes(content)

    return b"".join(_record(event(point)) for point in points)


def _record(data: bytes) -> bytes:
    """A TFRecord: length, its checksum, the data, its checksum."""
    from tensorboardX.record_writer import masked_crc32c

    length = struct.pack("<Q", len(data))
    return b"".join([length, struct.pack("<I", masked_crc32c(length)), data, struct.pack("<I", masked_crc32c(data))])
