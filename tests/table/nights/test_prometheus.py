"""What Prometheus reads is what the receipts say, in its own format."""

from datetime import UTC, datetime
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from labelmill.table.nights import exposition, nights
from table.nights.made import receipt


def series(table: Path, name: str = "s3://bucket/labels") -> dict[tuple[str, ...], float]:
    """(name without the common beginning, labels but that of the table, in order) -> value."""
    found = {}
    for family in text_string_to_metric_families(exposition(name, nights(str(table)))):
        assert family.type == "gauge"
        assert family.documentation
        for sample in family.samples:
            labels = dict(sample.labels)
            assert labels.pop("table") == name
            found[(sample.name.removeprefix("labelmill_nights_"), *labels.values())] = sample.value
    return found


def seconds(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


def test_the_last_run_s_figures(tmp_path: Path) -> None:
    receipt(tmp_path, 1, "2026-11-01T01:00:05", pictures_labelled=7)
    receipt(
        tmp_path,
        2,
        "2026-11-02T01:00:05",
        statuses={"ok": 90, "unreadable": 4, "archived": 6},
        cost={"total": 1.25, "currency": "EUR"},
    )
    found = series(tmp_path)
    assert found == {
        ("last_success_timestamp_seconds", "nightly"): seconds("2026-11-02T01:10:05"),
        ("last_run_timestamp_seconds", "nightly"): seconds("2026-11-02T01:00:05"),
        ("next_start_timestamp_seconds", "nightly"): seconds("2026-11-03T01:00:00"),
        ("running", "nightly"): 0,
        ("last_exit_code", "nightly"): 0,
        ("last_outcome", "nightly", "complete"): 1,
        ("last_outcome", "nightly", "nothing to do"): 0,
        ("last_outcome", "nightly", "stopped"): 0,
        ("last_outcome", "nightly", "skipped"): 0,
        ("last_outcome", "nightly", "killed"): 0,
        ("duration_seconds", "nightly"): 600,
        ("listed_pictures", "nightly"): 1000,
        ("pictures", "nightly", "ok"): 90,
        ("pictures", "nightly", "unreadable"): 4,
        ("pictures", "nightly", "archived"): 6,
        ("failure_rate", "nightly"): 4 / 94,
        ("held_pictures", "nightly"): 900,
        ("vanished_pictures", "nightly"): 9,
        ("vanished_rate", "nightly"): 0.01,
        ("cost", "nightly", "EUR"): 1.25,
    }


def test_a_failed_night_leaves_the_last_success_where_it_was(tmp_path: Path) -> None:
    receipt(tmp_path, 1, "2026-11-01T01:00:05")
    receipt(
        tmp_path,
        2,
        "2026-11-02T01:00:05",
        outcome="stopped",
        exit_code=4,
        pictures_labelled=0,
        failed=0,
        statuses={},
        pictures_vanished=300,
    )
    found = series(tmp_path)
    assert found["last_success_timestamp_seconds", "nightly"] == seconds("2026-11-01T01:10:05")
    assert found["last_exit_code", "nightly"] == 4
    assert found["vanished_rate", "nightly"] == 300 / 900
    assert found["failure_rate", "nightly"] == 0


def test_a_skipped_night_keeps_the_figures_of_the_one_before(tmp_path: Path) -> None:
    receipt(tmp_path, 1, "2026-11-01T01:00:05")
    nothing = {"pictures_listed": 0, "pictures_held": 0, "pictures_labelled": 0, "failed": 0, "statuses": {}}
    receipt(tmp_path, 0, "2026-11-02T01:00:05", outcome="skipped", exit_code=5, **nothing)
    found = series(tmp_path)
    assert (found["last_exit_code", "nightly"], found["last_outcome", "nightly", "skipped"]) == (5, 1)
    assert found["last_run_timestamp_seconds", "nightly"] == seconds("2026-11-02T01:00:05")
    assert found["pictures", "nightly", "ok"] == 96


def test_a_run_at_work_is_no_end(tmp_path: Path) -> None:
    from labelmill.storage import open_store
    from labelmill.storage.lease import hold_lease

    receipt(tmp_path, 1, "2026-11-01T01:00:05")
    receipt(tmp_path, 2, "2026-11-02T01:00:05", outcome="running", exit_code=None)
    with hold_lease(open_store(f"{tmp_path}/_labelmill"), "nightly"):
        found = series(tmp_path)
    assert (found["running", "nightly"], found["last_exit_code", "nightly"]) == (1, 0)
    found = series(tmp_path)
    assert (found["running", "nightly"], found["last_exit_code", "nightly"]) == (0, 137)
    assert found["last_outcome", "nightly", "killed"] == 1


def test_without_a_schedule_or_a_run_nothing_is_said_of_it(tmp_path: Path) -> None:
    assert exposition("t", nights(str(tmp_path))) == ""
    receipt(tmp_path, 1, "2026-11-01T01:00:05", schedule=None, outcome="stopped", exit_code=1)
    names = {name for name, *_ in series(tmp_path)}
    assert {"next_start_timestamp_seconds", "last_success_timestamp_seconds"}.isdisjoint(names)


def test_names_from_outside_stay_within_their_label(tmp_path: Path) -> None:
    hostile = 'a"} 1\nup{x="\\'
    receipt(tmp_path, 1, "2026-11-01T01:00:05", job=hostile)
    assert series(tmp_path, name=hostile)["running", hostile] == 0
