"""Handing a spec to a cluster as a job, once for a night, however often it is asked for."""

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import labelmill
from labelmill.cluster.submission.dashboard import Dashboard
from labelmill.cluster.submission.job import Job
from labelmill.cluster.submission.sight import Sight
from labelmill.spec import LoadedSpec, Portable, ServeSpec, portable

__all__ = ["Submission", "secrets_of", "submit"]

_SPEC = "job.json"
# Not `labelmill`, which code that travels with a job has not installed; and without a shell that outlives a signal.
_ENTRYPOINT = f"exec python -m labelmill run {_SPEC}"
# Ray kills 3 s after it has asked a job to stop; a run then commits what it has, which may wait for a slow store.
_STOPS_WITHIN_S = 60


@dataclass(frozen=True, slots=True)
class Submission:
    """A job on the cluster; `is_new`: it was not there before."""

    job: Job
    is_new: bool


def submit(
    loaded: LoadedSpec,
    dashboard: Dashboard,
    *,
    night: date | None = None,
    ship_code: bool = False,
    secrets: Mapping[str, str] | None = None,
) -> Submission:
    """Hand the job of a spec over for a night (default: today, in the time zone of its schedule).

    Its id is made of the spec, the night and an attempt, since Ray never takes an id twice. An attempt that waits, runs
    or has succeeded is the job; only after one that failed or was stopped there is a next one. So whoever does not know
    whether a submission went through repeats it.

    `secrets` are the values of variables that the nodes are not left to have. SpecError: a folder of this machine that
    the cluster does not see, or a secret in the spec itself.
    """
    parcel = portable(loaded, Sight(dashboard).address_there)
    night = night or today(loaded)
    beginning = _beginning(loaded, parcel, night)
    before = _attempts(dashboard, beginning)
    if before and not before[-1].has_failed:
        return Submission(before[-1], is_new=False)
    job_id = f"{beginning}{len(before) + 1}"
    with tempfile.TemporaryDirectory(prefix="labelmill-") as folder:
        Path(folder, _SPEC).write_text(json.dumps(parcel.data, indent=2), "utf-8")
        environment = {"RAY_JOB_STOP_WAIT_TIME_S": str(_STOPS_WITHIN_S), **(secrets or {})}
        runtime_env: dict[str, object] = {"working_dir": folder, "env_vars": environment}
        if ship_code:
            runtime_env["py_modules"] = [str(Path(labelmill.__file__).parent)]
        is_new = dashboard.submit(job_id, _ENTRYPOINT, runtime_env, _metadata(loaded, night))
    return Submission(dashboard.job(job_id), is_new)


def today(loaded: LoadedSpec) -> date:
    """The date where the job's nights are counted."""
    spec = loaded.spec
    schedule = None if isinstance(spec, ServeSpec) else spec.schedule
    return datetime.now(ZoneInfo(schedule.time_zone if schedule else "UTC")).date()


def _beginning(loaded: LoadedSpec, parcel: Portable, night: date) -> str:
    digest = hashlib.sha256(json.dumps(parcel.data, sort_keys=True).encode()).hexdigest()
    return f"{loaded.spec.kind}-{loaded.spec.name}-{night.isoformat()}-{digest[:8]}-"


def _attempts(dashboard: Dashboard, beginning: str) -> list[Job]:
    """In their order. Their numbers have no gap, since only the last one's end brings a next one."""
    numbered = {int(job.id.removeprefix(beginning)): job for job in dashboard.jobs() if _is_attempt(job.id, beginning)}
    return [numbered[number] for number in sorted(numbered)]


def _is_attempt(job_id: str, beginning: str) -> bool:
    return job_id.startswith(beginning) and re.fullmatch("[1-9][0-9]*", job_id.removeprefix(beginning)) is not None


def _metadata(loaded: LoadedSpec, night: date) -> dict[str, str]:
    return {
        "labelmill": labelmill.__version__,
        "kind": loaded.spec.kind,
        "name": loaded.spec.name,
        "night": night.isoformat(),
    }


def secrets_of(loaded: LoadedSpec) -> dict[str, str]:
    """The values that this machine has of the variables which carry the spec's secrets."""
    names = portable(loaded, lambda _, address: address).secrets
    return {name: os.environ[name] for name in names if name in os.environ}
