"""What others can follow of a run while it goes on: TensorBoard's files beside its checkpoints, a run on MLflow.

The process that started the run writes both, from the progress that the workers keep. So there is one writer however
many workers there are, and a run that is started again goes on where it was seen last.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Protocol

from labelmill.errors import LabelmillError
from labelmill.model.bundle import Bundle
from labelmill.train.job import Job
from labelmill.train.progress import Progress
from labelmill.train.tracking.curves import Point, curve_points
from labelmill.train.tracking.tensorboard import TensorBoard

__all__ = ["Tracking", "tracked"]

logger = logging.getLogger(__name__)


class Tracker(Protocol):
    """One place where a run can be followed. It has the points up to `last_step`."""

    last_step: int

    def log(self, points: Sequence[Point]) -> None: ...

    def finish(self, bundle: Bundle) -> None: ...

    def end(self, status: str) -> None: ...


class Tracking:
    """All places where a run can be followed. What cannot be shown now is shown with a later epoch.

    ClusterError, when it is made: a server that the spec names does not answer.
    """

    def __init__(self, job: Job) -> None:
        self._spec = job.spec
        self._trackers: list[Tracker] = [TensorBoard(job.run_uri)]
        self._silent: list[Tracker] = []
        if job.spec.tracking.mlflow:
            from labelmill.train.tracking.mlflow_run import MlflowRun  # MLflow takes a second to import

            self._trackers.append(MlflowRun(job))

    def follow(self, progress: Progress) -> None:
        """Show what is new in `progress`."""
        points = curve_points(self._spec, progress)
        for tracker in self._trackers:
            if new := [point for point in points if point.step > tracker.last_step]:
                self._attempt(tracker, partial(tracker.log, new))

    def finish(self, bundle: Bundle) -> None:
        """Show what came out."""
        for tracker in self._trackers:
            self._attempt(tracker, partial(tracker.finish, bundle))

    def end(self, status: str) -> None:
        """The run ended without a bundle: FAILED, KILLED by Ctrl-C, or FINISHED, as a trial that was not the best."""
        for tracker in self._trackers:
            self._attempt(tracker, partial(tracker.end, status))

    def _attempt(self, tracker: Tracker, show: Callable[[], None]) -> None:
        """Training goes on when nobody can watch it."""
        try:
            show()
        except LabelmillError as exc:
            if tracker not in self._silent:
                self._silent.append(tracker)
                logger.warning("the run cannot be followed now: %s", exc)
        else:
            self._silent = [silent for silent in self._silent if silent is not tracker]


@contextmanager
def tracked(job: Job) -> Iterator[Tracking]:
    """Show that the run has begun, and how it ended, should it end with an error."""
    tracking = Tracking(job)
    try:
        yield tracking
    except (KeyboardInterrupt, SystemExit):
        tracking.end("KILLED")
        raise
    except LabelmillError:
        tracking.end("FAILED")
        raise
