"""Units for systemd: a job with its timer, or an endpoint. Printed as a script that puts them where they belong."""

import getpass
from datetime import UTC, datetime

from cronsim import CronSim

from labelmill.cluster.deploy.night import Night
from labelmill.spec import Schedule

__all__ = ["calendar", "service", "timer"]

_SCRIPT = """\
# Run it as root: it writes the units below, and starts them. Secrets and the store's keys go into
# /etc/labelmill/{name}.env (NAME=value, mode 0600) before.
set -eu
"""
_FILE = """\
cat > /etc/systemd/system/{file} <<'END'
{text}END
"""
_SERVICE = """\
[Unit]
Description={description}
Wants=network-online.target
After=network-online.target

[Service]
Type={type}
User={user}
WorkingDirectory={folder}
EnvironmentFile=-/etc/labelmill/{name}.env
ExecStart={command}
# SIGTERM goes to the job alone, which ends what it has started, commits what it has and gives its lease back.
KillMode=mixed
TimeoutStopSec=90
{more}NoNewPrivileges=yes
ProtectSystem=full
"""
_TIMER = """\
[Unit]
Description=when {name} starts

[Timer]
{calendar}Persistent=true

[Install]
WantedBy=timers.target
"""
_WEEKDAYS = ("Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


def timer(night: Night) -> str:
    """A oneshot service and its timer; a start that was missed, since the machine was off, is made up for."""
    schedule = night.schedule
    deadline = f"{schedule.deadline_s:.0f}" if schedule.deadline_s else "infinity"
    # A night that was skipped, as the one before is at work, is no failure.
    unit = _unit(night, "oneshot", f"TimeoutStartSec={deadline}\nSuccessExitStatus=5\n")
    lines = "".join(f"OnCalendar={line}\n" for line in calendar(schedule))
    files = _files(
        night, {f"{night.name}.service": unit, f"{night.name}.timer": _TIMER.format(name=night.name, calendar=lines)}
    )
    return f"{files}systemctl daemon-reload\nsystemctl enable --now {night.name}.timer\n"


def service(night: Night) -> str:
    """An endpoint that is started again when it fails."""
    more = "Restart=on-failure\nRestartSec=5\n"
    unit = _unit(night, "exec", more) + "\n[Install]\nWantedBy=multi-user.target\n"
    files = _files(night, {f"{night.name}.service": unit})
    return f"{files}systemctl daemon-reload\nsystemctl enable --now {night.name}.service\n"


def calendar(schedule: Schedule) -> list[str]:
    """The times of a schedule in systemd's words (systemd.time(7)). Cron runs a job on a day that is one of its days or
    one of its weekdays where both are restricted; systemd where it is both, so that takes two lines."""
    times = CronSim(schedule.cron, datetime.now(UTC))
    weekdays = sorted({day % 7 for day in times.weekdays if isinstance(day, int)})
    named = f"{','.join(_WEEKDAYS[day] for day in weekdays)} " if len(weekdays) < 7 else ""
    months, days = _numbers(times.months, 12), _numbers(times.days, 31)
    clock = f"{_numbers(times.hours, 24)}:{_numbers(times.minutes, 60)}:00 {schedule.time_zone}"
    if times.day_and or not named or days == "*":
        return [f"{named}*-{months}-{days} {clock}"]
    return [f"*-{months}-{days} {clock}", f"{named}*-{months}-* {clock}"]


def _numbers(found: set[int], count: int) -> str:
    return "*" if len(found) == count else ",".join(f"{number:02d}" for number in sorted(found))


def _unit(night: Night, type_: str, more: str) -> str:
    return _SERVICE.format(
        description=f"labelmill {night.loaded.spec.kind} {night.loaded.spec.name}",
        type=type_,
        user=getpass.getuser(),
        folder=_escaped(str(night.folder)),
        name=night.name,
        command=_escaped(night.command).replace("$", "$$"),
        more=more,
    )


def _escaped(text: str) -> str:
    return text.replace("%", "%%")  # systemd's own specifiers


def _files(night: Night, units: dict[str, str]) -> str:
    return _SCRIPT.format(name=night.name) + "".join(_FILE.format(file=file, text=text) for file, text in units.items())
