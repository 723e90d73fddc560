"""What Ray Train runs in each worker: take a share of the pictures, and train with the others."""

import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import psutil
import ray
import ray.train
import ray.train.torch
import torch

from labelmill.allowance import cores_here
from labelmill.cluster import named_node
from labelmill.dataset import Examples
from labelmill.spec import Range, TrainSpec
from labelmill.storage import limit_requests, part_of_worker
from labelmill.train.feed.balance import oversampled
from labelmill.train.feed.feed import Feed, Share
from labelmill.train.feed.resolution import check_sides
from labelmill.train.job import Job
from labelmill.train.loop.allocator import keep_freed_memory
from labelmill.train.loop.distill import taught
from labelmill.train.loop.loop import Course, train
from labelmill.train.loop.losses import build_objective
from labelmill.train.loop.pause import Pauses
from labelmill.train.loop.state import State, keep_state, start_state
from labelmill.train.loop.team import Team
from labelmill.train.progress import RunFolder

__all__ = ["run_worker", "take_part"]

logger = logging.getLogger(__name__)

_MAX_CACHE_BYTES = 8 * 2**30


def run_worker(config: dict[str, Any]) -> None:
    """Train as one of the workers; `config` holds the job and a reference to the training and validation examples."""
    job: Job = config["job"]
    context = ray.train.get_context()
    team = Team(context.get_world_rank(), context.get_world_size(), ray.train.torch.get_device())
    folder = RunFolder(job.run_uri)
    pauses = Pauses(team, job.spec.workers.checkpoint_every_s)

    def keep(state: State) -> None:
        if team.rank == 0:
            job.check_fence()
            keep_state(state, folder)
        ray.train.report({"epoch": state.progress.num_epochs})  # the others wait here until the state is safe
        pauses.kept()

    take_part(job, team, ray.get(config["examples"]), context.get_local_world_size(), keep, pauses.is_due)


def take_part(
    job: Job,
    team: Team,
    examples: tuple[Examples, Examples],
    num_neighbours: int,
    keep: Callable[[State], None],
    is_due: Callable[[], bool],
) -> None:
    """Train with the team on this worker's share of the training and validation examples.

    `num_neighbours` workers share this node, this one counted. `keep` and `is_due` as in `loop.train`. NodeError: this
    node does not reach what the others do.
    """
    _spare_the_store(job.spec)
    with named_node(ray.util.get_node_ip_address()):
        num_cores = _num_cores() // num_neighbours
        torch.set_num_threads(max(1, num_cores))
        if team.device.type == "cpu":
            keep_freed_memory()
        state = start_state(job, team)
        check_sides(job.spec, state.network, state.progress.preprocessing.image_size_px, team.device)
        feed = _feed(job, state, team, *examples, num_cores, num_neighbours)
        objective = taught(job, build_objective(job, examples[0].targets, team.device), state.progress.preprocessing)
        train(Course(job, feed, team, objective), state, keep, is_due=is_due)


def _spare_the_store(spec: TrainSpec) -> None:
    """This process sends no more than its share of the requests that the run may; a trial of a search is a worker."""
    whole, count = spec.max_requests_per_s, spec.workers.count
    most = count.max if isinstance(count, Range) else count
    limit_requests(None if whole is None else partial(part_of_worker, whole, most))


def _feed(
    job: Job, state: State, team: Team, train: Examples, validation: Examples, num_cores: int, num_neighbours: int
) -> Feed:
    optimize = job.spec.optimize
    batch_size = min(optimize.batch_size, len(train))
    share = Share.of(team.rank, team.size, batch_size)
    return Feed(
        job.spec,
        state.progress.preprocessing,
        oversampled(train, optimize.oversample).take(share.of_pictures(len(train), optimize.seed)),
        validation.take(torch.arange(team.rank, len(validation), team.size).numpy()),
        share=share,
        rows=share.rows(len(train)),
        num_steps=-(-train.num_draws // batch_size),
        num_pictures=len(train) + len(validation),
        # With a GPU the cores are there to decode; without one the network wants them, and one thread keeps ahead.
        num_threads=max(2, num_cores) if team.device.type == "cuda" else 1,
        cache_size_bytes=min(_MAX_CACHE_BYTES, psutil.virtual_memory().available // (4 * num_neighbours)),
    )


def _num_cores() -> int:
    """Cores of this node: what Ray was told it has, but no more than this process may use."""
    here = ray.get_runtime_context().get_node_id()
    told = next((node["Resources"].get("CPU", 1) for node in ray.nodes() if node["NodeID"] == here), 1)
    return max(1, min(int(told), cores_here()))
