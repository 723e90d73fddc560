"""A line for cron."""

import os
import shlex
from pathlib import Path

from labelmill.cluster.deploy.night import Night
from labelmill.errors import SpecError

__all__ = ["crontab"]

_HEAD = """\
# {name}: for the crontab of a user on a machine in the time zone {time_zone}.
# It takes secrets and the store's keys from {environment} (NAME=value, mode 0600),
# and writes to {log}.
"""


def crontab(night: Night) -> str:
    """Lines for a user's crontab, for Debian's cron as for others.

    SpecError: the schedule is in another time zone than this machine. Cron of some systems knows CRON_TZ; for that of
    others it is a variable like any other, and the job would run at the wrong time.
    """
    schedule = night.schedule
    if _plain(schedule.time_zone) != _plain(machines_time_zone()):
        raise SpecError(
            f"schedule.time_zone: expected {machines_time_zone()}, which cron of this machine goes by, got "
            f"{schedule.time_zone}: give the schedule in it, or deploy to systemd, which knows time zones"
        )
    environment, log = night.folder / f"{night.name}.env", night.folder / f"{night.name}.log"
    deadline = f"timeout --signal=TERM --kill-after=90 {schedule.deadline_s:.0f} " if schedule.deadline_s else ""
    read = f"if [ -r {_quoted(environment)} ]; then set -a; . {_quoted(environment)}; set +a; fi"
    command = f"cd {_quoted(night.folder)} && {read} && exec {deadline}{night.command} >> {_quoted(log)} 2>&1"
    head = _HEAD.format(name=night.name, time_zone=schedule.time_zone, environment=environment, log=log)
    return f"{head}{schedule.cron} {command.replace('%', chr(92) + '%')}\n"


def machines_time_zone() -> str:
    """The name of this machine's time zone, as zoneinfo has it; UTC where nothing is set."""
    if name := os.environ.get("TZ", "").lstrip(":"):
        return name
    place = os.path.realpath("/etc/localtime")
    return place.partition("/zoneinfo/")[2] or "UTC"


def _plain(time_zone: str) -> str:
    name = time_zone.removeprefix("posix/").removeprefix("Etc/")
    return "UTC" if name in ("UCT", "Zulu", "Universal", "GMT", "Greenwich") else name


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))
