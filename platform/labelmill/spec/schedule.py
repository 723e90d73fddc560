"""When a job runs by itself, and who hears of its end. labelmill schedules nothing: it tells schedulers of this."""

import re
from datetime import UTC, datetime
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, Field, SecretStr

from labelmill.spec.parts import Number, Part, expected

__all__ = ["Notify", "Schedule"]

CRON_RULE = "five fields for minute, hour, day, month and weekday, such as 0 2 * * * for two o'clock each night"
# What cron, Kubernetes and systemd all understand: no seconds, no `L`, no `#`, no `@daily`.
_FIELD = re.compile(r"([0-9*,/-]|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec|mon|tue|wed|thu|fri|sat|sun)+", re.I)


def _cron(value: str) -> str:
    fields = value.split()
    try:
        if len(fields) == 5 and all(map(_FIELD.fullmatch, fields)):
            next(CronSim(" ".join(fields), datetime.now(UTC)))
            return " ".join(fields)
    except (CronSimError, StopIteration):
        pass  # a field out of its range, or a day that never comes
    raise expected(CRON_RULE)


def _time_zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (OSError, ValueError, KeyError):  # a folder, no name at all, not there
        raise expected("the name of a time zone, such as UTC or Europe/Berlin") from None
    return value


def _webhook(value: SecretStr) -> SecretStr:
    if not re.fullmatch(r"https?://[^\s/]+\S*", value.get_secret_value()):
        raise expected("an address that starts with https:// or http://", secret=True)
    return value


class Schedule(Part):
    """When the job runs by itself: `labelmill deploy` writes it for Kubernetes, cron and systemd."""

    cron: Annotated[str, AfterValidator(_cron)] = Field(description=f"When it starts: {CRON_RULE}.")
    time_zone: Annotated[str, AfterValidator(_time_zone)] = Field(
        default="UTC", description="Where that is the time of day, such as Europe/Berlin."
    )
    overlap: Literal["skip", "replace"] = Field(
        default="skip",
        description="When the run before is not done yet: skip ends the new one with the exit code for busy; replace "
        "has the old one stop, which keeps what it committed, and goes on from there.",
    )
    deadline_s: Annotated[Number, Field(ge=60)] | None = Field(
        default=None,
        description="Seconds after which the scheduler stops a run; what it committed stays, and the next one goes on.",
    )


class Notify(Part):
    """Who hears how a run ended: a webhook, as Slack, Mattermost and others have them."""

    url: Annotated[SecretStr, AfterValidator(_webhook)] = Field(
        description='Where to, from the environment: "${LABELMILL_WEBHOOK}". It gets JSON with a text and the summary.'
    )
    when: Literal["always", "failure"] = Field(
        default="always", description="Every end, or only those that are not exit code 0."
    )
