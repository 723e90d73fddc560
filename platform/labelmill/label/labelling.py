"""The to-do list labelled: what the workers finish is committed from time to time, accounted for, and watched."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from labelmill.ahead import with_ticks
from labelmill.cluster import cores_in_use, nodes
from labelmill.errors import ClusterError
from labelmill.label.budget import Budget
from labelmill.label.commits import Commits
from labelmill.label.receipt.account import Account
from labelmill.label.receipt.progress import show_progress, show_waiting
from labelmill.label.spread.workers import Workers
from labelmill.label.work.chunk import Chunk
from labelmill.label.work.fetch import read_items
from labelmill.label.work.stage import Stage
from labelmill.spec import LabelSpec

if TYPE_CHECKING:  # what knows Ray is imported once Ray's settings are made
    from labelmill.label.spread.pipeline import Pipeline, Refused
    from labelmill.label.spread.series import Series

__all__ = ["Labelling"]

logger = logging.getLogger(__name__)

_TICK_S = 0.5
_PROGRESS_S = 1.0
_STARTS_WITHIN_S = 5.0
_NODES_NAMED = 3
_PICTURES_TRIED = 8

Avoided = dict[tuple[str, str], "Refused"]
"""What was given back last by a node (its id) at a step that takes a "CPU" or a "GPU"."""


class Labelling:
    """The work of one run. Whatever ends it, what is finished is committed."""

    def __init__(self, spec: LabelSpec, account: Account, commits: Commits, budget: Budget) -> None:
        self._spec, self._account, self._commits, self._budget = spec, account, commits, budget
        self._began = self._shown_at = time.monotonic()
        self._num_pictures = 0
        self._series: Series | None = None

    def label(self, stage: Stage, workers: Workers) -> None:
        """Label every chunk. What a node gives back, since it reaches nothing, is labelled on others in a further pass;
        ClusterError when there are no others, unless some pictures could be read."""
        chunks: Sequence[int] = range(stage.todo.num_chunks)
        avoid: Avoided = {}
        self._num_pictures = stage.todo.num_rows
        if not self._account.alone:
            from labelmill.label.spread.series import Series

            self._series = Series(self._spec.name)
        self._commits.begin()
        while chunks:
            refused = self._pass(stage, workers, chunks, avoid)
            chunks, avoid = [one.chunk for one in refused], avoid | _by_place(refused)
            if refused and _nobody_is_left(avoid):
                self._check_driver_fares_no_better(stage, avoid)
                stage, avoid = replace(stage, doubts_its_node=False), {}  # then it is the pictures
            for one in avoid.values() if refused else ():
                logger.warning("node %s cannot read what it should label, others do: %s", one.address, one.reason)

    def _pass(self, stage: Stage, workers: Workers, chunks: Sequence[int], avoid: Avoided) -> list[Refused]:
        """Take finished chunks, commit them from time to time, and stop when too many fail."""
        from labelmill.label.spread.pipeline import Pipeline

        away = {one: [node for node, step_on in avoid if step_on == one] for _, one in avoid}
        pipeline = Pipeline(stage, workers, chunks, name=self._spec.name, alone=self._account.alone, avoid=away)
        try:
            refused = self._take(pipeline, stage)
            self._commits.now()
            self._tell(pictures_per_s=0.0)
        except BaseException:
            self._commits.keep()
            raise
        finally:
            self._account.receipt.operators |= pipeline.operators
            self._account.receipt.labelling_s = round(time.monotonic() - self._began, 2)
        return refused

    def _take(self, pipeline: Pipeline, stage: Stage) -> list[Refused]:
        """Everything that comes out of it; what was given back is returned."""
        refused: list[Refused] = []
        places: Avoided = {}
        with closing(with_ticks(pipeline.outcomes(), _TICK_S, pipeline.stop)) as arrivals:
            for outcome in arrivals:
                if isinstance(outcome, Chunk):
                    self._add(outcome)
                elif outcome is not None:
                    refused.append(outcome)
                    is_first = (outcome.node, outcome.step_on) not in places
                    places |= _by_place([outcome])
                    if is_first and _nobody_is_left(places):
                        self._check_driver_fares_no_better(stage, places)
                self._commits.when_due()
                self._look(pipeline.num_actors)
        return refused

    def _add(self, chunk: Chunk) -> None:
        self._account.add(chunk)
        self._commits.add(chunk.file)
        if self._series:
            self._series.add(chunk)
        self._budget.check(self._account.receipt.statuses)

    def _look(self, num_actors: int) -> None:
        """How far it is, and who is at work on it."""
        account, now = self._account, time.monotonic()
        account.clock.at_work(num_actors)
        if now - self._shown_at < _PROGRESS_S:
            return
        self._shown_at = now
        pace = account.clock.pace()
        self._tell(pace.pictures_per_s if pace else 0.0)
        if not num_actors and not account.receipt.pictures_labelled and now - self._began > _STARTS_WITHIN_S:
            show_waiting(*cores_in_use())
        else:
            show_progress(pace, account.receipt, self._num_pictures)

    def _tell(self, pictures_per_s: float) -> None:
        if self._series:
            left = self._num_pictures - self._account.receipt.pictures_labelled
            self._series.look(self._commits.number, pictures_per_s, left)

    def _check_driver_fares_no_better(self, stage: Stage, refused: Avoided) -> None:
        """ClusterError: no node could label anything, and here pictures can be read that they could not read."""
        if self._account.receipt.pictures_labelled:
            return
        for one in list(refused.values())[:_NODES_NAMED]:
            items = stage.todo.read(one.chunk).slice(0, _PICTURES_TRIED)
            if any(isinstance(found, bytes) for found in read_items(items)):
                raise _no_node(list(refused.values()))


def _by_place(refused: Sequence[Refused]) -> Avoided:
    return {(one.node, one.step_on): one for one in refused}


def _nobody_is_left(refused: Avoided) -> bool:
    """Whether there is a step that every node which could do it has refused."""
    steps = {step_on for _, step_on in refused}
    return any(nodes(one).keys() <= {node for node, step_on in refused if step_on == one} for one in steps)


def _no_node(refused: Sequence[Refused]) -> ClusterError:
    reasons = "; ".join(f"{one.address}: {one.reason}" for one in refused[:_NODES_NAMED])
    return ClusterError(
        f"none of the cluster's nodes can read what it should label ({reasons}). Give them the credentials that this "
        "machine has, and the folders that the spec names, and run the same command again."
    )
