"""Where a run's time went, told by a clock that the test sets."""

import pytest

from labelmill.label.receipt.clock import COMMIT, IDLE, START_UP, Clock
from labelmill.label.work.chunk import Chunk
from labelmill.table.data_file import DataFile


class Time:
    def __init__(self):
        self.s = 100.0

    def __call__(self):
        return self.s


@pytest.fixture
def time():
    return Time()


@pytest.fixture
def clock(time):
    return Clock(time)


def chunk(rows=100, busy_s=1.0, **seconds):
    return Chunk(0, DataFile("f", 1, "2026-01-01", "{}"), rows, {"ok": rows}, {}, seconds=seconds, busy_s=busy_s)


def label(clock, time, *, rounds, workers=2, start_s=10.0, busy_s=1.0, **seconds):
    """Workers in step: each round one chunk of 100 from each."""
    clock.start_labelling(workers)
    time.s += start_s
    for _ in range(rounds):
        time.s += busy_s
        for _ in range(workers):
            clock.add(chunk(busy_s=busy_s, **seconds))


def test_the_stages_add_up_to_the_wall_clock(clock, time):
    label(clock, time, rounds=20, decode=0.5, forward=0.3, fetch=0.1)
    time.s += 4.0
    stages = clock.wall_by_stage_s()
    assert sum(stages.values()) == pytest.approx(34.0)
    assert stages[START_UP] == pytest.approx(10.0)
    assert stages["decode"] == pytest.approx(10.0)
    assert stages["forward"] == pytest.approx(6.0)
    assert stages["other"] == pytest.approx(2.0)
    assert stages[IDLE] == pytest.approx(0.0)
    assert stages[COMMIT] == pytest.approx(4.0)


def test_a_worker_that_starts_late_is_idle_and_not_busy(clock, time):
    clock.start_labelling(2)
    for _ in range(10):
        time.s += 1.0
        clock.add(chunk(decode=1.0))
    stages = clock.wall_by_stage_s()
    assert stages[IDLE] == pytest.approx(5.0)
    assert stages["decode"] == pytest.approx(5.0)


def test_chunks_counted_for_a_dead_worker_and_its_heir_take_no_more_time_than_there_was(clock, time):
    clock.start_labelling(1)
    for _ in range(5):
        time.s += 1.0
        clock.add(chunk(decode=1.0))
        clock.add(chunk(decode=1.0))
    assert sum(clock.wall_by_stage_s().values()) == pytest.approx(5.0)


def test_the_steady_rate_leaves_the_start_out_and_is_exact_for_workers_in_step(clock, time):
    label(clock, time, rounds=10, workers=4, start_s=60.0)
    assert clock.steady_pictures_per_s() == pytest.approx(400.0)


def test_a_run_too_short_for_a_steady_rate_has_none(clock, time):
    label(clock, time, rounds=1)
    assert clock.steady_pictures_per_s() is None


def test_a_run_without_pictures_is_all_start_up(clock, time):
    time.s += 3.0
    assert clock.wall_by_stage_s() == {START_UP: pytest.approx(3.0)}
    assert clock.pace() is None


def test_the_pace_is_that_of_the_last_half_minute_and_names_what_limits_now(clock, time):
    label(clock, time, rounds=100, decode=0.9)
    label(clock, time, rounds=20, start_s=0.0, busy_s=2.0, decode=0.1, fetch=1.8)
    pace = clock.pace()
    assert pace.pictures_per_s == pytest.approx(100.0, rel=0.1)
    assert pace.limited_by == "fetch"


def test_a_pace_with_nothing_new_for_long_falls(clock, time):
    label(clock, time, rounds=2, decode=0.9)
    time.s += 398
    assert clock.pace().pictures_per_s == pytest.approx(1.0)


def test_a_night_fits_into_120_buckets_and_no_picture_is_lost_between_them(clock, time):
    label(clock, time, rounds=3000, busy_s=7.0, decode=6.0)
    assert len(clock.buckets) <= 120
    assert sum(clock.buckets) == pytest.approx(600_000)
    middle = clock.buckets[10:-2]
    assert min(middle) / clock.bucket_s == pytest.approx(200 / 7, rel=0.05)
