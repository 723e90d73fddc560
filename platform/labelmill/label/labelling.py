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
from labelmill.label.verdict import are_the_pictures_to_blame, no_node
from labelmill.label.work.chunk import Chunk
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
        """Label every chunk. What a node gives back, since it reaches nothing, is labelled on others in a further pass.

        NodeError: a whole pass labelled nothing, no node is left, and it is not the pictures.
        """
        chunks: Sequence[int] = range(stage.todo.num_chunks)
        avoid: Avoided = {}
        self._num_pictures = stage.todo.num_rows
        if not self._account.alone:
            from labelmill.label.spread.series import Series

            self._series = Series(self._spec.name)
        self._commits.begin()
        while chunks:
            left, refused = self._pass(stage, workers, chunks, avoid)
            if left:
                stage, avoid = _how_to_go_on(stage, refused, avoid | refused, in_vain=len(left) == len(chunks))
            chunks = left

    def _pass(self, stage: Stage, workers: Workers, chunks: Sequence[int], avoid: Avoided) -> tuple[list[int], Avoided]:
        """Take finished chunks, commit them from time to time, and stop when too many fail, or when every node gives
        back what it gets. Returned are the chunks that are left, and who gave some back."""
        from labelmill.label.spread.pipeline import Pipeline

        away = {one: [node for node, step_on in avoid if step_on == one] for _, one in avoid}
        pipeline = Pipeline(stage, workers, chunks, name=self._spec.name, alone=self._account.alone, avoid=away)
        try:
            finished, refused = self._take(pipeline, avoid)
            self._commits.now()
            self._account.keep()
            self._tell(pictures_per_s=0.0)
        except BaseException:
            self._commits.keep()
            raise
        finally:
            self._account.receipt.operators |= pipeline.operators
            self._account.receipt.labelling_s = round(time.monotonic() - self._began, 2)
        return [chunk for chunk in chunks if chunk not in finished], refused

    def _take(self, pipeline: Pipeline, avoid: Avoided) -> tuple[set[int], Avoided]:
        """Everything that comes out of it, until no node is left that might label more."""
        finished: set[int] = set()
        refused: Avoided = {}
        with closing(with_ticks(pipeline.outcomes(), _TICK_S, pipeline.stop)) as arrivals:
            for outcome in arrivals:
                if isinstance(outcome, Chunk):
                    finished.add(outcome.chunk)
                    self._add(outcome)
                elif outcome is not None:
                    place = outcome.node, outcome.step_on
                    is_new = place not in refused
                    refused[place] = outcome
                    if is_new and _nobody_is_left(avoid | refused):
                        break
                if self._commits.when_due():
                    self._account.keep()
                self._look(pipeline.num_actors)
        return finished, refused

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


def _how_to_go_on(stage: Stage, refused: Avoided, avoid: Avoided, *, in_vain: bool) -> tuple[Stage, Avoided]:
    """What is told to the next pass, and the nodes that it avoids, after one that may have labelled nothing."""
    if not refused:
        raise ClusterError("the workers ended without a word. What was committed stays. Run the same command again.")
    nobody_is_left = _nobody_is_left(avoid)
    if (in_vain or nobody_is_left) and are_the_pictures_to_blame(stage, list(refused.values())):
        return replace(stage, doubts_its_node=False), {}
    if in_vain and nobody_is_left:
        raise no_node(stage, list(avoid.values()))
    for one in refused.values():
        logger.warning("node %s gives its chunks back, they are tried again: %s", one.address, one.reason)
    return stage, {} if nobody_is_left else avoid


def _nobody_is_left(refused: Avoided) -> bool:
    """Whether there is a step that every node which could do it has refused."""
    steps = {step_on for _, step_on in refused}
    return any(nodes(one).keys() <= {node for node, step_on in refused if step_on == one} for one in steps)
