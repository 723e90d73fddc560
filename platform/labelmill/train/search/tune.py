"""Search: one spec is trained with many settings, the weak ones are stopped early, the best one is the candidate.

Every trial is a run of its own below the run's folder, so one that is cut short goes on from its last checkpoint, and
`search.json` says which of them have ended. There is no second record: Ray Tune is told anew what is known.
"""

import json
import logging
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labelmill.dataset import TrainingSet
from labelmill.errors import ClusterError, DataError, LabelmillError, NotFoundError
from labelmill.model.bundle import WEIGHTS_NAME
from labelmill.spec import trial_specs
from labelmill.storage import open_store
from labelmill.train.candidate import Candidate
from labelmill.train.feed.balance import check_weighted_labels
from labelmill.train.job import Job
from labelmill.train.progress import METRIC_BY_TASK, Progress, RunFolder
from labelmill.train.tracking.tracking import Tracking
from labelmill.train.workplace import last_line, workplace

__all__ = ["make"]

logger = logging.getLogger(__name__)

_RECORD = "search.json"


@dataclass(frozen=True)
class Trial:
    """One setting: the values of the fields that are searched, and the run that they make."""

    number: int
    values: Mapping[str, Any]
    job: Job

    def __str__(self) -> str:
        return ", ".join(f"{field} {value}" for field, value in self.values.items())

    def progress(self) -> Progress | None:
        return RunFolder(self.job.run_uri).progress()


def make(job: Job, training_set: TrainingSet, draft: Path) -> Candidate:
    """Search, unless an earlier start of the same run did. `findings["search"]` has a row for every trial.

    DataError: no trial could be trained. ClusterError: Ray does not start, or has not what the workers ask for.
    """
    check_weighted_labels(job.spec.optimize.loss, job.labels)
    trials = _trials(job)
    search = _Search(job, trials)
    if len(search.outcomes) < len(trials):
        search.run(training_set)
    progress = {trial.number: found for trial in trials if (found := trial.progress()) and found.epochs}
    if not progress:
        raise DataError(f"none of {len(trials)} trials could be trained; the first: {search.outcomes[1]}")
    best = max(progress, key=lambda number: (progress[number].best.metric, -number))
    trial, epochs = trials[best - 1], progress[best]
    logger.info("the best of %d trials is number %d: %s", len(trials), best, trial)
    RunFolder(trial.job.run_uri).download_weights(epochs.best.number, draft / WEIGHTS_NAME)
    Tracking(job).follow(epochs)
    findings = {"search": _table(job, trials, progress, search.outcomes, best)}
    return Candidate(trial.job.model.architecture, epochs.preprocessing, epochs, findings)


def _trials(job: Job) -> list[Trial]:
    return [
        Trial(number, values, Job(spec, job.labels, f"{job.run_uri}/trials/{number:04d}", values))
        for number, (values, spec) in enumerate(trial_specs(job.spec), start=1)
    ]


class _Search:
    """The trials while they run. `outcomes` has those that ended: number -> why it failed, or None."""

    def __init__(self, job: Job, trials: Sequence[Trial]) -> None:
        self._job = job
        self._trials = trials
        self._store = open_store(job.run_uri)
        self._metric = METRIC_BY_TASK[job.spec.task]
        self._shown: dict[int, int] = {}
        self._followed: dict[int, Tracking] = {}
        self.outcomes: dict[int, str | None] = self._read_outcomes()

    def run(self, training_set: TrainingSet) -> None:
        """Train what has not ended yet."""
        if RunFolder(self._job.run_uri).exists():
            self._shown = {trial.number: found.num_epochs for trial in self._trials if (found := trial.progress())}
            logger.info("resuming the search: %d of %d trials have ended", len(self.outcomes), len(self._trials))
        os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # it would end the search as if all were done
        with workplace(self._job.spec.workers):
            try:
                self._run(training_set)
            except LabelmillError:
                raise
            except Exception as exc:
                raise ClusterError(f"Ray Tune did not run: {last_line(exc)}") from exc

    def epoch(self, number: int, epoch: int, metric: float) -> None:
        """A trial has come so far; those of an earlier start are told again."""
        if epoch > self._shown.get(number, 0):
            self._shown[number] = epoch
            trial = self._trials[number - 1]
            words = f"trial {number}/{len(self._trials)}  epoch {epoch}/{trial.job.spec.optimize.epochs}"
            logger.info("%s  validation %s %.4f  %s", words, self._metric, metric, trial)
            progress = trial.progress()
            if progress is not None and (tracking := self._tracking(trial)):
                tracking.follow(progress)

    def end(self, number: int, failure: str | None) -> None:
        if failure:
            logger.warning("trial %d failed (%s): %s", number, self._trials[number - 1], failure)
        if number not in self.outcomes:
            if tracking := self._tracking(self._trials[number - 1]):
                tracking.end("FAILED" if failure else "FINISHED")
            self.outcomes[number] = failure
            self._store.write(_RECORD, json.dumps({str(key): why for key, why in self.outcomes.items()}).encode())

    def _tracking(self, trial: Trial) -> Tracking | None:
        """Where this trial can be followed; None while a server does not answer."""
        if trial.number not in self._followed:
            try:
                self._followed[trial.number] = Tracking(trial.job)
            except LabelmillError as exc:
                logger.warning("trial %d cannot be followed now: %s", trial.number, exc)
        return self._followed.get(trial.number)

    def _run(self, training_set: TrainingSet) -> None:
        from labelmill.train.search.asha import run_trials

        jobs = {trial.number: trial.job for trial in self._trials}
        with tempfile.TemporaryDirectory(prefix="labelmill-search-", ignore_cleanup_errors=True) as folder:
            examples = (training_set.train, training_set.validation)
            run_trials(self._job.spec, jobs, tuple(self.outcomes), examples, self, folder)

    def _read_outcomes(self) -> dict[int, str | None]:
        try:
            return {int(key): why for key, why in json.loads(self._store.read(_RECORD)).items()}
        except NotFoundError:
            return {}


def _table(
    job: Job,
    trials: Sequence[Trial],
    progress: Mapping[int, Progress],
    outcomes: Mapping[int, str | None],
    best: int,
) -> dict[str, Any]:
    """What the report shows: each trial's values, how far it came, its curve over epochs and its best."""
    assert job.spec.tune is not None
    rows = []
    for trial in trials:
        found = progress.get(trial.number)
        epochs = found.epochs if found else ()
        finished = found is not None and found.is_finished(trial.job.spec.optimize)
        rows.append(
            {
                "number": trial.number,
                "values": dict(trial.values),
                "epochs": len(epochs),
                "metric": found.best.metric if found and epochs else None,
                "curve": [epoch.metric for epoch in epochs],
                "stopped_early": not finished and not outcomes.get(trial.number),
                "failure": outcomes.get(trial.number),
            }
        )
    scales = {field: getattr(among, "scale", None) for field, among in job.spec.tune.search.items()}
    return {"metric": METRIC_BY_TASK[job.spec.task], "fields": scales, "best": best, "trials": rows}
