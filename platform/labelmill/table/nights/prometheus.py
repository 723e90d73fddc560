"""The last run of each job as Prometheus reads it from a file: node_exporter's textfile collector, or a push gateway.

What must outlive the cluster of a night lies in the table; so whoever reaches the store can say it, at any time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from labelmill.table.nights.gaps import next_start
from labelmill.table.nights.night import Night
from labelmill.table.receipts import RUNNING

__all__ = ["exposition"]

_OUTCOMES = ("complete", "nothing to do", "stopped", "skipped", "killed")
_HELP = {
    "last_success_timestamp_seconds": "End of the last run with exit code 0.",
    "last_run_timestamp_seconds": "Start of the last run, whatever became of it.",
    "next_start_timestamp_seconds": "First start that the schedule wants after the last run; in the past: it is late.",
    "running": "1 while a run has begun and not ended.",
    "last_exit_code": "Exit code of the last run that is over; 5: skipped or replaced, 137: killed without a word.",
    "last_outcome": "1 for the outcome of the last run that is over.",
    "duration_seconds": "How long the last run took that listed the store.",
    "listed_pictures": "Pictures that it found in the store.",
    "pictures": "Pictures that it tried, by the status that they got.",
    "failure_rate": "Share of these without labels, archived ones aside.",
    "held_pictures": "Pictures that the table held before it.",
    "vanished_pictures": "Of these, listed no more.",
    "vanished_rate": "Share of these, also where it stopped the run.",
    "cost": "What it cost, by the prices of its spec.",
}


def exposition(table: str, nights: Sequence[Night]) -> str:
    """The text format, version 0.0.4. Jobs on one table have series of their own."""
    found: dict[str, list[str]] = {name: [] for name in _HELP}
    for job in dict.fromkeys(night.job for night in nights):
        for name, more, value in _of_job([night for night in nights if night.job == job]):
            labels = {"table": table, "name": job, **more}  # Prometheus has a label `job` of its own
            inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in labels.items())
            found[name].append(f"labelmill_nights_{name}{{{inside}}} {float(value)!r}")
    lines = []
    for name, samples in found.items():
        if samples:
            full = f"labelmill_nights_{name}"
            lines += [f"# HELP {full} {_HELP[name]}", f"# TYPE {full} gauge", *samples]
    return "".join(f"{line}\n" for line in lines)


Sample = tuple[str, dict[str, str], float]


def _of_job(runs: Sequence[Night]) -> Iterator[Sample]:
    over = [run for run in runs if run.outcome != RUNNING]
    yield "last_run_timestamp_seconds", {}, runs[-1].started_at.timestamp()
    yield "running", {}, float(runs[-1].outcome == RUNNING)
    if due := next_start(runs[-1]):
        yield "next_start_timestamp_seconds", {}, due.timestamp()
    done = [run for run in over if run.exit_code == 0]
    if done:
        yield "last_success_timestamp_seconds", {}, done[-1].ended_at.timestamp()
    if over:
        if over[-1].exit_code is not None:
            yield "last_exit_code", {}, over[-1].exit_code
        for outcome in _OUTCOMES:
            yield "last_outcome", {"outcome": outcome}, float(over[-1].outcome == outcome)
    if looked := [run for run in over if run.listed or run.held]:
        yield from _figures(looked[-1])


def _figures(run: Night) -> Iterator[Sample]:
    tried = run.labelled - run.statuses.get("archived", 0)
    yield "duration_seconds", {}, run.duration_s
    yield "listed_pictures", {}, run.listed
    for status, count in run.statuses.items():
        yield "pictures", {"status": status}, count
    yield "failure_rate", {}, run.failed / tried if tried else 0.0
    yield "held_pictures", {}, run.held
    yield "vanished_pictures", {}, run.vanished
    yield "vanished_rate", {}, run.vanished / run.held if run.held else 0.0
    if run.cost is not None:
        yield "cost", {"currency": run.currency}, run.cost


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
