"""`labelmill nights` as a person and as a collector of Prometheus' see it."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from running import labelmill
from table.nights.made import NIGHTLY, receipt

ERROR = "30.0% of the pictures vanished"


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Five nights: a good one, one that was stopped, two that never were, one that another run held up."""
    table = tmp_path / "labels"
    money = {"total": 1.5, "currency": "EUR"}
    for number, days_ago, more in (
        (1, 5, {"cost": money}),
        (2, 4, {"outcome": "stopped", "exit_code": 4, "error": ERROR}),
        (0, 1, {"outcome": "skipped", "exit_code": 5, "error": "busy"}),
    ):
        receipt(table, number, night(days_ago), schedule=NIGHTLY | {"time_zone": "UTC"}, **more)
    return table


def night(days_ago: int) -> str:
    """The start of a night's run, five seconds past two."""
    two = datetime.now(UTC).replace(hour=2, minute=0, second=5, microsecond=0)
    last = two if two + timedelta(minutes=15) <= datetime.now(UTC) else two - timedelta(days=1)
    return (last - timedelta(days=days_ago - 1)).isoformat(timespec="seconds").removesuffix("+00:00")


def told(*arguments: Any, **environ: Any) -> str:
    done = labelmill("nights", *arguments, **environ)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_a_person_sees_every_night_and_those_that_never_were_the_last_one_below(table: Path) -> None:
    _, *lines = [" ".join(line.split()) for line in told(table, COLUMNS=220).splitlines()]
    day = [night(days_ago)[:10] for days_ago in range(6)]
    assert lines == [
        f"{day[5]} 02:00 complete 100 4 9 10 min 1.50 EUR digits@3 unreadable 3, missing 1",
        f"{day[4]} 02:00 stopped (4) 100 4 9 10 min digits@3 {ERROR}",
        f"{day[3]} 02:00 no run the schedule wanted one, and 1 more up to {day[2]} 02:00",
        f"{day[1]} 02:00 skipped (5) 100 4 9 10 min digits@3 busy",
    ]


def test_a_program_sees_the_same(table: Path) -> None:
    found = json.loads(told(table, "--json"))
    assert [one["outcome"] for one in found] == ["complete", "stopped", "no run", "skipped"]
    assert (found[1]["exit_code"], found[1]["error"], found[1]["statuses"]["ok"]) == (4, ERROR, 96)
    assert found[2]["nights"] == 2
    assert found[2]["wanted_at"].startswith(night(3)[:10])


def test_the_names_of_several_jobs_are_shown(table: Path) -> None:
    receipt(table, 9, night(2), job="other")
    first = told(table, COLUMNS=220).splitlines()[0]
    assert first.split()[:2] == ["job", "started"]


def test_what_stands_in_a_receipt_cannot_steer_a_terminal(table: Path) -> None:
    receipt(table, 9, night(2), outcome="stopped", exit_code=1, error="x\x1b[2Jy\r\n[bold]z")
    said = told(table, COLUMNS=220)
    assert "\x1b" not in said
    assert "[bold]z" in said


def test_a_table_without_runs_is_no_error(tmp_path: Path) -> None:
    assert told(tmp_path / "nothing") == f"no run on {tmp_path / 'nothing'} yet\n"
    assert told(tmp_path / "nothing", "--json") == "[]\n"


def test_the_figures_are_written_beside_and_renamed(table: Path, tmp_path: Path) -> None:
    folder = tmp_path / "textfile"
    folder.mkdir()
    file = folder / "labels.prom"
    file.write_text("older")
    assert told(table, "--metrics", file) == ""
    assert file.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in folder.iterdir()] == ["labels.prom"]
    text = file.read_text()
    assert f'labelmill_nights_last_exit_code{{table="{table}",name="nightly"}} 5.0\n' in text
    assert text.endswith("\n")
    assert told(table, "--metrics", "-") == text


@pytest.mark.parametrize("where", ["nowhere/x.prom", "."])
def test_a_place_that_is_none_is_one_line(table: Path, tmp_path: Path, where: str) -> None:
    done = labelmill("nights", table, "--metrics", tmp_path / where)
    assert (done.returncode, done.stdout) == (1, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("error: --metrics: expected a place for a file, got ")
