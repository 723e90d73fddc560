"""A spec as the text that a scheduler takes."""

import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from labelmill.cluster.deploy.cron import crontab
from labelmill.cluster.deploy.kubernetes import cronjob, raycronjob, rayservice
from labelmill.cluster.deploy.night import Night
from labelmill.cluster.deploy.systemd import service, timer
from labelmill.errors import SpecError
from labelmill.spec import LoadedSpec, ServeSpec

__all__ = ["TARGETS", "deployed"]

_OF_JOBS: dict[str, Callable[[Night], str]] = {
    "cronjob": cronjob,
    "raycronjob": raycronjob,
    "crontab": crontab,
    "systemd": timer,
}
_OF_ENDPOINTS: dict[str, Callable[[Night], str]] = {"rayservice": rayservice, "systemd": service}
TARGETS = tuple(dict.fromkeys([*_OF_JOBS, *_OF_ENDPOINTS]))


def deployed(loaded: LoadedSpec, target: str, *, overrides: Sequence[str] = (), image: str = "") -> str:
    """What `target`, one of TARGETS, is told of the spec.

    `image` is the container image of the nodes, for Kubernetes. SpecError: a job without a schedule, or a target for
    the other kind.
    """
    spec = loaded.spec
    known = _OF_ENDPOINTS if isinstance(spec, ServeSpec) else _OF_JOBS
    if target not in known:
        raise SpecError(f"kind: {spec.kind} is deployed to {' or '.join(known)}, and not to {target}")
    if not isinstance(spec, ServeSpec) and spec.schedule is None:
        raise SpecError(
            f"{loaded.path}: schedule: required, and missing: when shall it run? Such as "
            'schedule: {cron: "0 2 * * *", time_zone: Europe/Berlin}'
        )
    file = Path(loaded.path).absolute()
    words = [sys.executable, "-m", "labelmill", "run", str(file)]
    words += [word for override in overrides for word in ("--set", override)]
    return known[target](Night(loaded, shlex.join(words), Path.cwd(), image))
