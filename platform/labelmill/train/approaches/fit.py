"""Train on Ray: start the workers, show each epoch, start again where a lost worker left off."""

import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from labelmill.dataset import TrainingSet
from labelmill.errors import ClusterError, DataError, LabelmillError, StorageError
from labelmill.model.bundle import WEIGHTS_NAME
from labelmill.spec import Range
from labelmill.train.candidate import Candidate
from labelmill.train.feed.balance import check_weighted_labels
from labelmill.train.job import Job
from labelmill.train.progress import METRIC_BY_TASK, Epoch, Progress, RunFolder
from labelmill.train.published import published_models
from labelmill.train.tracking.tracking import Tracking
from labelmill.train.workplace import last_line, looking, workplace

if TYPE_CHECKING:
    from ray.train.torch import TorchTrainer

__all__ = ["fit", "make"]

logger = logging.getLogger(__name__)

_MAX_FAILURES_WITHOUT_PROGRESS = 3


def make(job: Job, training_set: TrainingSet, draft: Path) -> Candidate:
    """Train, unless an earlier start of the same run did; the best epoch is the candidate."""
    folder = RunFolder(job.run_uri)
    progress = folder.progress()
    if progress is None or not progress.is_finished(job.spec.optimize):
        sizes = ", ".join(f"{len(examples)} {name}" for name, examples in training_set.splits().items())
        logger.info("training %s: %s pictures, %d labels", job.spec.name, sizes, len(job.labels))
        fit(job, training_set)
        progress = folder.progress()
    assert progress is not None
    if progress.num_epochs < job.spec.optimize.epochs:
        logger.info("stopped early: no epoch after %d of %d was better", progress.best.number, progress.num_epochs)
    folder.download_weights(progress.best.number, draft / WEIGHTS_NAME)
    return Candidate(job.model.architecture, progress.preprocessing, progress)


def fit(job: Job, training_set: TrainingSet) -> None:
    """Train to the last epoch; the checkpoints and the progress are in the run's folder afterwards.

    A worker that is lost (memory, preemption, a broken node) costs what was trained since the last checkpoint: training
    goes on from there, and gives up after three losses at the same place. Ctrl-C ends it at once.
    ClusterError: Ray does not start, or has not what the workers ask for. DataError: as the loop says.
    """
    _check_batch(job, len(training_set.train))
    check_weighted_labels(job.spec.optimize.loss, job.labels)
    if job.spec.distill is not None:
        published_models(job, job.spec.distill.teachers)  # asked again by the workers; here before they start
    with workplace(job.spec.workers):
        import ray

        watch = _Watch(job)
        try:
            _attempt_until_done(job, ray.put((training_set.train, training_set.validation)), watch)
        except (KeyboardInterrupt, SystemExit):
            logger.info("stopped; run the same spec again to go on after %s", watch.place)
            raise


def _attempt_until_done(job: Job, examples: object, watch: "_Watch") -> None:
    failures_at: list[str] = []
    while (failure := _attempt(job, examples, watch)) is not None:
        failures_at.append(watch.place)
        if failures_at.count(watch.place) >= _MAX_FAILURES_WITHOUT_PROGRESS:
            raise ClusterError(
                f"training workers failed {_MAX_FAILURES_WITHOUT_PROGRESS} times after {watch.place}: "
                f"{last_line(failure)}. What was trained before is kept: run the same spec again to go on."
            ) from failure
        logger.warning("a training worker was lost (%s); going on after %s", last_line(failure), watch.place)


class _Watch:
    """Reads the run's progress while workers train, and shows each epoch once: in the log, and to all who follow."""

    def __init__(self, job: Job) -> None:
        self._folder = RunFolder(job.run_uri)
        self._epochs = job.spec.optimize.epochs
        self._metric = METRIC_BY_TASK[job.spec.task]
        self._tracking = Tracking(job)
        self.num_epochs = self.step = 0  # the last checkpoint: complete epochs, and steps of the one after them
        if progress := self._read():
            self.num_epochs, self.step = progress.num_epochs, progress.step
            self._tracking.follow(progress)
            logger.info("resuming after %s of %d", self.place, self._epochs)

    @property
    def place(self) -> str:
        return f"epoch {self.num_epochs}" + (f" and {self.step} steps" if self.step else "")

    def look(self) -> None:
        progress = self._read()
        if progress is None:
            return
        if progress.num_epochs > self.num_epochs:
            self._tracking.follow(progress)
        for epoch in progress.epochs[self.num_epochs :]:
            self._log(epoch)
        self.num_epochs, self.step = progress.num_epochs, progress.step

    def _read(self) -> Progress | None:
        try:
            return self._folder.progress()
        except StorageError as exc:
            logger.debug("progress cannot be read now: %s", exc)  # a look missed, not an epoch: the next one shows it
            return None

    def _log(self, epoch: Epoch) -> None:
        logger.info(
            "epoch %d/%d  loss %.4f  validation loss %.4f  %s %.4f  %.0f pictures/s  %d workers",
            epoch.number,
            self._epochs,
            epoch.loss,
            epoch.validation_loss,
            self._metric,
            epoch.metric,
            epoch.pictures_per_s,
            epoch.num_workers,
        )


def _attempt(job: Job, examples: object, watch: _Watch) -> Exception | None:
    """One start of the workers, to the end of training (None) or to a failure worth another try."""
    folder = tempfile.TemporaryDirectory(prefix="labelmill-train-", ignore_cleanup_errors=True)
    with folder as name, looking(watch.look):
        try:
            _trainer(job, examples, Path(name)).fit()
        except Exception as exc:  # noqa: BLE001 - Ray Train's, or what the workers raised
            return _worth_another_try(exc)
    return None


def _worth_another_try(error: Exception) -> Exception:
    """The error, if it came from the machines; raises what a person must mend."""
    from ray.train import TrainingFailedError

    for failure in getattr(error, "worker_failures", {}).values():
        if isinstance(failure, LabelmillError):
            raise failure
    if not isinstance(error, TrainingFailedError):
        raise ClusterError(f"Ray Train did not run: {last_line(error)}") from error
    return error  # type: ignore[no-any-return]  # Ray's classes are not typed


def _trainer(job: Job, examples: object, folder: Path) -> "TorchTrainer":
    import ray.train
    from ray.train.torch import TorchTrainer

    from labelmill.train.loop.worker import run_worker

    class Trainer(TorchTrainer):
        def _register_sigint_handler(self, controller: object) -> None:
            """Ctrl-C is ours: Ray's own handler asks its workers to stop, and goes on until they have."""

    workers = job.spec.workers
    count = workers.count
    resources = {"CPU": workers.cpus} | ({"GPU": workers.gpus} if workers.gpus else {})
    return Trainer(
        run_worker,
        train_loop_config={"job": job, "examples": examples},
        scaling_config=ray.train.ScalingConfig(
            num_workers=(count.min, count.max) if isinstance(count, Range) else count,
            use_gpu=workers.gpus > 0,
            resources_per_worker=resources,
        ),
        # Checkpoints are ours, in the run's folder; Ray keeps its own notes in a folder that ends with this attempt.
        run_config=ray.train.RunConfig(name="run", storage_path=str(folder)),
    )


def _check_batch(job: Job, num_pictures: int) -> None:
    """Every worker needs a picture at every step."""
    count, batch_size = job.spec.workers.count, min(job.spec.optimize.batch_size, num_pictures)
    num_workers = count.max if isinstance(count, Range) else count
    if batch_size < num_workers:
        raise DataError(
            f"{num_workers} workers cannot share batches of {batch_size} (optimize.batch_size "
            f"{job.spec.optimize.batch_size}, {num_pictures} training pictures). Lower workers.count, or raise it."
        )
