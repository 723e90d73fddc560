"""Trials on Ray Tune: each trains alone, and asynchronous successive halving (ASHA; Li et al., 2020) stops the weak."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import ray
import torch
from ray import tune
from ray.tune.experiment import Trial as RayTrial
from ray.tune.schedulers import AsyncHyperBandScheduler
from ray.tune.search.basic_variant import BasicVariantGenerator

from labelmill.dataset import Examples
from labelmill.errors import FencedError, LabelmillError, NodeError
from labelmill.spec import Range, TrainSpec
from labelmill.train.job import Job
from labelmill.train.loop.pause import Pauses
from labelmill.train.loop.state import State, keep_state
from labelmill.train.loop.team import Team
from labelmill.train.loop.worker import take_part
from labelmill.train.progress import Epoch, RunFolder

__all__ = ["Watch", "run_trials"]

_MAX_LOSSES = 2  # of a trial's process, before the trial counts as failed


class Watch(Protocol):
    """Is told of the trials, by their numbers."""

    def epoch(self, number: int, epoch: int, metric: float) -> None: ...

    def end(self, number: int, failure: str | None) -> None: ...


def run_trials(
    spec: TrainSpec,
    jobs: Mapping[int, Job],
    ended: Sequence[int],
    examples: tuple[Examples, Examples],
    watch: Watch,
    folder: str,
) -> None:
    """Train the jobs of all trials, as many at once as there are workers. Those that `ended` in an earlier start only
    say again what their epochs gave, so that the scheduler judges the others by them."""
    assert spec.tune is not None
    count = spec.workers.count
    at_once = count.max if isinstance(count, Range) else count
    resources = {"cpu": spec.workers.cpus} | ({"gpu": spec.workers.gpus} if spec.workers.gpus else {})
    trainable = tune.with_parameters(
        _run_trial, jobs=dict(jobs), ended=tuple(ended), examples=examples, at_once=at_once
    )
    scheduler = AsyncHyperBandScheduler(
        time_attr="epoch",
        metric="metric",
        mode="max",
        max_t=spec.optimize.epochs,
        grace_period=spec.tune.min_epochs,
        reduction_factor=spec.tune.reduction,
    )
    tune.Tuner(
        tune.with_resources(trainable, resources),
        param_space={"number": tune.grid_search(sorted(jobs))},
        tune_config=tune.TuneConfig(
            scheduler=scheduler, search_alg=BasicVariantGenerator(max_concurrent=at_once), reuse_actors=True
        ),
        run_config=tune.RunConfig(
            name="search",
            storage_path=folder,
            verbose=0,
            callbacks=[_Callback(watch)],
            failure_config=tune.FailureConfig(max_failures=_MAX_LOSSES),
        ),
    ).fit()


class _Callback(tune.Callback):
    def __init__(self, watch: Watch) -> None:
        self._watch = watch
        self._failures: dict[int, str] = {}

    def on_trial_result(self, iteration: int, trials: list[RayTrial], trial: RayTrial, result: Any, **_: Any) -> None:
        number = trial.config["number"]
        if "failure" in result:
            self._failures[number] = result["failure"]
        else:
            self._watch.epoch(number, result["epoch"], result["metric"])

    def on_trial_complete(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **_: Any) -> None:
        number = trial.config["number"]
        self._watch.end(number, self._failures.get(number))

    def on_trial_error(self, iteration: int, trials: list[RayTrial], trial: RayTrial, **_: Any) -> None:
        lines = [line for line in str(trial.get_error() or "").splitlines() if line.strip()]
        self._watch.end(trial.config["number"], lines[-1] if lines else "its process was lost")


def _run_trial(
    config: dict[str, Any],
    *,
    jobs: Mapping[int, Job],
    ended: Sequence[int],
    examples: tuple[Examples, Examples],
    at_once: int,
) -> None:
    """What Ray Tune runs for each trial."""
    job = jobs[config["number"]]
    folder = RunFolder(job.run_uri)
    before = folder.progress()
    for epoch in before.epochs if before else ():
        _report(epoch)
    if config["number"] in ended:
        return
    team = Team(0, 1, torch.device("cuda" if job.spec.workers.gpus else "cpu"))
    pauses = Pauses(team, job.spec.workers.checkpoint_every_s)

    def keep(state: State) -> None:
        job.check_fence()
        keep_state(state, folder)
        pauses.kept()
        if not state.progress.step:
            _report(state.progress.epochs[-1])

    try:
        take_part(job, team, examples, _num_neighbours(job.spec, at_once), keep, pauses.is_due)
    except FencedError:
        raise  # no answer: the search is another process's
    except NodeError:
        raise  # says nothing of the trial: Ray Tune starts it again
    except LabelmillError as exc:  # a learning rate at which training diverges is an answer, too
        reached = folder.progress()
        tune.report({"epoch": reached.num_epochs if reached else 0, "metric": 0.0, "failure": str(exc)})


def _report(epoch: Epoch) -> None:
    tune.report({"epoch": epoch.number, "metric": epoch.metric})


def _num_neighbours(spec: TrainSpec, at_once: int) -> int:
    """How many trials this node may hold at once."""
    here = ray.get_runtime_context().get_node_id()
    has: dict[str, float] = next((node["Resources"] for node in ray.nodes() if node["NodeID"] == here), {})
    room = [int(has.get("CPU", 1) / spec.workers.cpus)]
    if spec.workers.gpus:
        room.append(int(has.get("GPU", 1) / spec.workers.gpus))
    return max(1, min(at_once, *room))
