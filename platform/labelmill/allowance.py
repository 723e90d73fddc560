"""What of this machine this process may use: how many cores it may keep busy, and how much memory it may take."""

import os
from collections.abc import Iterator
from pathlib import Path

import psutil

__all__ = ["cores_here", "memory_bytes"]

_GROUPS, _OWN_GROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")


def cores_here() -> int:
    """The cores that this process may run on (`taskset`, a cpuset), and no more than a control group gives it the time
    of: of 1.5 cores one, and at least one."""
    allowed = len(os.sched_getaffinity(0))
    quotas = [quota for folder in _groups("cpu") for quota in _quota(folder)]
    return max(1, int(min([allowed, *quotas])))


def memory_bytes() -> int:
    """The machine's, or what a control group leaves this process of it."""
    limits = [limit for folder in _groups("memory") for limit in _limit(folder)]
    return min([psutil.virtual_memory().total, *limits])


def _groups(controller: str) -> Iterator[Path]:
    """The folders of the process's group and of those that it lies in: version 2 of control groups has one tree, and
    version 1 one for each controller. In a container the path may be the host's, while its own group lies at the top.
    """
    try:
        lines = _OWN_GROUPS.read_text().splitlines()
    except OSError:
        return
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers and controller not in controllers.split(","):
            continue
        for top in (_GROUPS / controllers, _GROUPS / controller) if controllers else (_GROUPS,):
            within = top / path.lstrip("/")
            yield from {top, within, *within.parents} - set(top.parents)


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


def _limit(folder: Path) -> Iterator[int]:
    for name in ("memory.max", "memory.limit_in_bytes"):
        try:
            given = (folder / name).read_text().strip()
        except OSError:
            continue
        if given.isdecimal():
            yield int(given)
