"""How many cores this process may keep busy."""

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["cores_here"]

_GROUPS, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cores_here() -> int:
    """The cores that this process may run on (`taskset`, a cpuset), and no more than a control group gives it the time
    of: of 1.5 cores one, and at least one."""
    allowed = len(os.sched_getaffinity(0))
    return max(1, int(min([allowed, *_quotas(_GROUPS, _OWN_GROUPS)])))


def _quotas(groups: Path, own_groups: Path) -> Iterator[float]:
    """What the process's group, and each that it lies in, may take: version 2 of control groups, and version 1."""
    try:
        lines = own_groups.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        for top in (groups / controllers, groups / "cpu") if controllers else (groups,):
            within = top / path.lstrip("/")
            # In a container the path may be the host's, while its own group lies at the top.
            for folder in {top, within, *within.parents} - set(top.parents):
                yield from _quota(folder)


def _quota(folder: Path) -> Iterator[float]:
    try:
        if (folder / "cpu.max").exists():
            given, period = (folder / "cpu.max").read_text().split()
        else:
            given, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        if given.strip() != "max" and int(given) > 0:
            yield int(given) / int(period)
    except (OSError, ValueError):
        return
