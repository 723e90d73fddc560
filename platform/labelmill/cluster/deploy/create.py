"""What the pod of a CronJob runs: it creates the RayJob of the night, once.

    python -m labelmill.cluster.deploy.create rayjob.json '0 2 * * *' Europe/Berlin

It needs nothing but the service account that Kubernetes gives to the pod. A RayJob of this night that has failed is
followed by another one; any other is the one that this would create.
"""

import json
import os
import ssl
import sys
import urllib.error
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from cronsim import CronSim

__all__ = ["create", "started_for"]

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_ATTEMPTS = 9
_ANSWERS_WITHIN_S = 30.0
_CLOCKS_DIFFER = timedelta(seconds=30)  # of this node and of the one that started the pod


def create(rayjob: dict[str, Any], night: str, account: Path = _ACCOUNT) -> str:
    """Create it under its name and that of the night, and say what was done. OSError: the API server refused, or did
    not answer."""
    name = rayjob["metadata"]["name"]
    for attempt in range(1, _ATTEMPTS + 1):
        called = f"{name}-{night}" + (f"-{attempt}" if attempt > 1 else "")
        body = rayjob | {"metadata": {**rayjob["metadata"], "name": called}}
        try:
            _ask(account, "", json.dumps(body).encode())
        except urllib.error.HTTPError as exc:
            if exc.code != 409:
                raise
        else:
            return f"created {called}"
        status = _ask(account, f"/{called}").get("status", {})
        if status.get("jobDeploymentStatus") != "Failed":
            return f"{called} is there already"
    raise OSError(f"{_ATTEMPTS} attempts at this night have failed: see `kubectl describe rayjob {name}-{night}`")


def started_for(cron: str, time_zone: str, now: datetime) -> str:
    """The night that a pod at work `now` was started for: the last time that the schedule wants, in UTC to the minute.

    Not today's date: a job may start twice a day, and a pod may have to wait until the next one."""
    times = CronSim(cron, (now + _CLOCKS_DIFFER).astimezone(ZoneInfo(time_zone)), reverse=True)
    return f"{next(times).astimezone(UTC):%Y%m%d%H%M}"


def _ask(account: Path, path: str, data: bytes | None = None) -> dict[str, Any]:
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    namespace = (account / "namespace").read_text("utf-8").strip()
    request = urllib.request.Request(
        f"https://{f'[{host}]' if ':' in host else host}:{port}/apis/ray.io/v1/namespaces/{namespace}/rayjobs{path}",
        data,
        {
            "Authorization": f"Bearer {(account / 'token').read_text('utf-8').strip()}",
            "Content-Type": "application/json",
        },
    )
    trusted = ssl.create_default_context(cafile=str(account / "ca.crt"))
    with urllib.request.urlopen(request, timeout=_ANSWERS_WITHIN_S, context=trusted) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def main() -> int:
    file, cron, time_zone = sys.argv[1:]
    night = started_for(cron, time_zone, datetime.now(UTC))
    try:
        said = create(json.loads(Path(file).read_text("utf-8")), night)
    except urllib.error.HTTPError as exc:
        said, code = f"error: Kubernetes refused the RayJob: {exc.code} {exc.read(500).decode(errors='replace')}", 1
    except (OSError, ValueError, KeyError) as exc:
        said, code = f"error: the RayJob was not created: {exc}", 1
    else:
        code = 0
    (sys.stderr if code else sys.stdout).write(f"{said}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
