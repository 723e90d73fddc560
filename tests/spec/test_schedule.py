"""When a job runs by itself, and who hears of its end."""

import pytest

from labelmill.errors import SpecError
from labelmill.spec import load_spec

LABEL = """
kind: label
name: nightly
registry: r
model: m@1
images: i
output: o
"""


def loaded(tmp_path, text, **environ):
    (tmp_path / "job.yaml").write_text(LABEL + text)
    return load_spec(tmp_path / "job.yaml", environ=environ)


def test_a_nightly_job_says_when_and_to_whom(tmp_path):
    text = 'schedule: {cron: "30 2 * * MON-FRI", time_zone: Europe/Berlin}\nnotify: {url: "${HOOK}"}\n'
    found = loaded(tmp_path, text, HOOK="https://hooks.example/T1/B2")
    schedule, notify = found.spec.schedule, found.spec.notify
    assert (schedule.cron, schedule.time_zone, schedule.overlap) == ("30 2 * * MON-FRI", "Europe/Berlin", "skip")
    assert (schedule.deadline_s, notify.when) == (None, "always")
    assert notify.url.get_secret_value() == "https://hooks.example/T1/B2"
    assert found.source["notify"] == {"url": "${HOOK}"}  # who has the address may write there


@pytest.mark.parametrize(
    "cron",
    [
        *("nightly", "@daily", "2 * * *", "0 0 2 * * *", "0 25 * * *", "60 2 * * *", "0 2 31 2 *", "0 2 * * 8"),
        *("0 2 L * *", "0 2 * * 5#2", "0 2 * * fry", "0 2 ? * *", "*/0 2 * * *", "5-1 2 * * *", ""),
    ],
)
def test_what_is_no_time_for_every_scheduler_is_refused(tmp_path, cron):
    with pytest.raises(SpecError, match=r"job.yaml:8: schedule.cron: expected five fields for minute, hour, day"):
        loaded(tmp_path, f'schedule: {{cron: "{cron}"}}\n')


@pytest.mark.parametrize("zone", ["Berlin", "CET+1", "", "Europe", "../UTC", "/etc/localtime"])
def test_what_is_no_time_zone_is_refused(tmp_path, zone):
    with pytest.raises(SpecError, match=r"schedule.time_zone: expected the name of a time zone, such as UTC"):
        loaded(tmp_path, f'schedule: {{cron: "0 2 * * *", time_zone: "{zone}"}}\n')


@pytest.mark.parametrize("url", ["hooks.example/T1", "ftp://hooks.example", "https://", "https:// a", "secret"])
def test_an_address_that_is_no_webhook_is_refused_and_not_shown(tmp_path, url):
    with pytest.raises(SpecError, match=r"notify.url: expected an address that starts with https://") as refused:
        loaded(tmp_path, f'notify: {{url: "{url}"}}\n')
    assert "hooks" not in str(refused.value) and "secret" not in str(refused.value)
