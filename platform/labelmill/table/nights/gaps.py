"""The nights that never were: starts that the schedule wanted, and no run that began for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise, takewhile
from zoneinfo import ZoneInfo

from cronsim import CronSim

from labelmill.spec import Schedule
from labelmill.table.nights.night import Night

__all__ = ["Gap", "gaps", "next_start"]

_EARLY = timedelta(seconds=30)  # a scheduler's clock may be ahead of the cluster's
_MAY_TAKE = timedelta(minutes=15)  # until the nodes are there and the run begins


@dataclass(frozen=True)
class Gap:
    """So many starts in a row that were wanted, from the first to the last, and had no run. `at_work`: since the run
    before was not done yet."""

    job: str
    first: datetime
    last: datetime
    count: int
    at_work: bool


def gaps(nights: Sequence[Night], now: datetime) -> list[Gap]:
    """Of the runs of a table, oldest first. Each run's own spec says when the next was to come; a start that was wanted
    counts as had if a run began before the next one was due."""
    return [gap for job in dict.fromkeys(night.job for night in nights) for gap in _of_job(job, nights, now)]


def next_start(night: Night) -> datetime | None:
    """The first start that the schedule wants after this run's; it has passed where a night is late."""
    return next(_wanted(night.schedule, night.started_at + _EARLY), None) if night.schedule else None


def _of_job(job: str, nights: Sequence[Night], now: datetime) -> Iterator[Gap]:
    runs = [night for night in nights if night.job == job]
    for before, after in pairwise([*runs, None]):
        if before is None or before.schedule is None:
            continue
        until = after.started_at + _EARLY if after else now - _MAY_TAKE
        starts = _wanted(before.schedule, before.started_at + _EARLY)
        missed = list(takewhile(lambda start: start <= until, starts))  # noqa: B023 - used up at once
        if after is not None:
            missed = missed[:-1]  # for which it came
        at_work = [start for start in missed if start < before.ended_at]
        for some, is_at_work in ((at_work, True), (missed[len(at_work) :], False)):
            if some:
                yield Gap(job, some[0], some[-1], len(some), is_at_work)


def _wanted(schedule: Schedule, after: datetime) -> Iterator[datetime]:
    for start in CronSim(schedule.cron, after.astimezone(ZoneInfo(schedule.time_zone))):
        yield start.astimezone(UTC)
