"""A night that never was is seen, and none is invented."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from labelmill.table.nights import Gap, gaps, next_start, nights
from table.nights.made import NIGHTLY, receipt


def at(day: int, hour: float, month: int = 11) -> datetime:
    return datetime(2026, month, day, int(hour), round(hour % 1 * 60), tzinfo=UTC)


def found(table: Path, now: datetime) -> list[Gap]:
    return gaps(nights(str(table)), now)


def test_nights_without_a_run_are_counted_between_runs_and_up_to_now(tmp_path: Path) -> None:
    receipt(tmp_path, 1, "2026-11-01T01:00:05")
    receipt(tmp_path, 2, "2026-11-02T01:00:05")
    receipt(tmp_path, 3, "2026-11-06T01:00:05")
    receipt(tmp_path, 4, "2026-11-08T01:00:05")
    assert found(tmp_path, at(10, 0.9)) == [
        Gap("nightly", at(3, 1), at(5, 1), 3, at_work=False),
        Gap("nightly", at(7, 1), at(7, 1), 1, at_work=False),
        Gap("nightly", at(9, 1), at(9, 1), 1, at_work=False),
    ]


def test_a_night_is_given_time_to_begin(tmp_path: Path) -> None:
    receipt(tmp_path, 1, "2026-11-01T01:00:05")
    assert found(tmp_path, at(2, 1.2)) == []
    assert len(found(tmp_path, at(2, 1.3))) == 1


@pytest.mark.parametrize("start", ["2026-11-02T00:59:45", "2026-11-02T01:00:00", "2026-11-02T09:30:00"])
def test_a_run_that_is_early_on_time_or_late_is_that_night_s(tmp_path: Path, start: str) -> None:
    receipt(tmp_path, 1, "2026-11-01T01:00:05")
    receipt(tmp_path, 2, start)
    assert found(tmp_path, at(3, 0)) == []


def test_a_second_run_in_the_day_takes_nobody_s_place(tmp_path: Path) -> None:
    for number, start in enumerate(["01T01:00:05", "01T12:00:00", "01T13:00:00", "02T01:00:05"], 1):
        receipt(tmp_path, number, f"2026-11-{start}")
    assert found(tmp_path, at(3, 0)) == []


@pytest.mark.parametrize("outcome", ["skipped", "stopped", "killed", "running"])
def test_a_night_that_failed_is_no_gap(tmp_path: Path, outcome: str) -> None:
    receipt(tmp_path, 1, "2026-11-01T01:00:05")
    receipt(tmp_path, 0, "2026-11-02T01:00:05", outcome=outcome)
    assert found(tmp_path, at(3, 0)) == []


def test_a_run_that_takes_days_is_why_there_was_none(tmp_path: Path) -> None:
    receipt(tmp_path, 1, "2026-11-01T01:00:05", wall_s=36 * 3600.0)
    assert found(tmp_path, at(4, 0)) == [
        Gap("nightly", at(2, 1), at(2, 1), 1, at_work=True),
        Gap("nightly", at(3, 1), at(3, 1), 1, at_work=False),
    ]


def test_without_a_schedule_no_gap_is_invented(tmp_path: Path) -> None:
    receipt(tmp_path, 1, "2026-11-01T01:00:05", schedule=None)
    receipt(tmp_path, 2, "2026-11-09T01:00:05", schedule=None)
    assert found(tmp_path, at(30, 0)) == []


def test_a_schedule_counts_from_the_run_that_had_it(tmp_path: Path) -> None:
    receipt(tmp_path, 1, "2026-11-01T01:00:05", schedule=None)
    receipt(tmp_path, 2, "2026-11-05T12:00:00")
    receipt(tmp_path, 3, "2026-11-07T01:00:05", schedule={"cron": "0 0 * * sun"})  # a Saturday
    assert found(tmp_path, at(16, 0)) == [
        Gap("nightly", at(6, 1), at(6, 1), 1, at_work=False),
        Gap("nightly", at(8, 0), at(15, 0), 2, at_work=False),
    ]


def test_jobs_on_one_table_have_gaps_of_their_own(tmp_path: Path) -> None:
    receipt(tmp_path, 1, "2026-11-01T01:00:05")
    receipt(tmp_path, 2, "2026-11-02T01:00:05", job="other", schedule=None)
    receipt(tmp_path, 3, "2026-11-03T01:00:05")
    assert [(gap.job, gap.count) for gap in found(tmp_path, at(3, 2))] == [("nightly", 1)]


def test_two_o_clock_is_that_of_the_place_also_when_the_clocks_change(tmp_path: Path) -> None:
    """On 25 October 2026 Berlin goes from UTC+2 to UTC+1."""
    for number, start in enumerate(["10-24T00:00:05", "10-25T00:00:05", "10-26T01:00:05"], 1):
        receipt(tmp_path, number, f"2026-{start}")
    assert found(tmp_path, at(27, 1, month=10)) == []
    last = nights(str(tmp_path))[-1]
    assert next_start(last) == at(27, 1, month=10)
    assert last.schedule
    assert last.schedule.cron == NIGHTLY["cron"]
