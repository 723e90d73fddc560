"""What a command costs: wall time, CPU-seconds and peak memory of its whole tree of processes."""

import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Cost", "RunFailed", "measure"]

_CPU_SAMPLE_S, _MEMORY_SAMPLE_S = 0.2, 1.0
_LINGER_S = 20.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")
_PR_SET_CHILD_SUBREAPER = 36

Process = tuple[int, int]  # number and start time: numbers are used again


class RunFailed(SystemExit):
    """A run that is no result: it failed, took too long, or left other rows than it should."""


@dataclass(frozen=True)
class Cost:
    """`cpu_s` is of all processes of the tree, as of their last sample: at most 0.2 s of each is missing.
    `peak_memory_bytes` is the greatest sum of proportional set sizes: what processes share counts once.
    `others_cpu_s` is what the rest of the machine took meanwhile, and `stolen_cpu_s` what other machines on the same
    host did, to tell a quiet run from a busy one. `cpu_curve` is (seconds since the epoch, CPU-seconds until then),
    sample by sample."""

    started_at: float
    wall_s: float
    cpu_s: float
    peak_memory_bytes: int
    others_cpu_s: float
    stolen_cpu_s: float
    cpu_curve: list[tuple[float, float]]


def measure(command: Sequence[str], environment: Mapping[str, str], log: Path, limit_s: float = 3600.0) -> Cost:
    """Run a command to its end and account for it. Its output goes to `log`. RunFailed: it failed, or ran too long."""
    # Processes that lose their parent come to us rather than to init, and so stay in the tree.
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    worked_before, stolen_before = _machine_cpu_s()
    with log.open("wb") as output:
        started_at, started = time.time(), time.monotonic()
        root = subprocess.Popen(list(command), env=dict(environment), stdout=output, stderr=subprocess.STDOUT)
        tree, curve = _Tree(), [(started_at, 0.0)]
        while root.poll() is None:
            tree.sample()
            curve.append((time.time(), tree.cpu_s))
            time.sleep(_CPU_SAMPLE_S)
            if time.monotonic() - started > limit_s:
                root.kill()
        wall_s = time.monotonic() - started
        tree.outlive(_LINGER_S)
    if root.returncode:
        end = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise RunFailed(f"{' '.join(command)} ended with code {root.returncode}; {log} ends with:\n{end}")
    worked, stolen = _machine_cpu_s()
    others_cpu_s = max(0.0, worked - worked_before - tree.cpu_s)
    return Cost(
        started_at, wall_s, tree.cpu_s, tree.peak_memory_bytes, others_cpu_s, round(stolen - stolen_before, 2), curve
    )


class _Tree:
    """The descendants of this process."""

    def __init__(self) -> None:
        self.peak_memory_bytes = 0
        self._ticks: dict[Process, int] = {}
        self._memory_at = 0.0

    @property
    def cpu_s(self) -> float:
        return sum(self._ticks.values()) / _TICKS_PER_S

    def sample(self) -> bool:
        """Whether anything of the tree still runs."""
        living = _descendants()
        self._ticks.update(living)
        if time.monotonic() - self._memory_at >= _MEMORY_SAMPLE_S:
            self._memory_at = time.monotonic()
            self.peak_memory_bytes = max(self.peak_memory_bytes, sum(_memory_bytes(pid) for pid, _ in living))
        return bool(living)

    def outlive(self, linger_s: float) -> None:
        """Wait for what the root left running, then end it: the next run must not share the machine with it."""
        deadline = time.monotonic() + linger_s
        while self.sample():
            if time.monotonic() > deadline:
                for pid, _ in _descendants():
                    os.kill(pid, signal.SIGKILL)
            _bury()
            time.sleep(_CPU_SAMPLE_S)


def _bury() -> None:
    """Take leave of orphans that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _descendants() -> dict[Process, int]:
    """CPU ticks of each living process below this one; what has ended and waits to be buried is left out."""
    parents: dict[int, int] = {}
    ticks: dict[int, tuple[Process, int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                # https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html; the name may hold spaces and brackets
                fields = (entry / "stat").read_text().rpartition(") ")[2].split()
            except OSError:
                continue
            pid = int(entry.name)
            parents[pid] = int(fields[1])
            if fields[0] not in "ZX":
                ticks[pid] = (pid, int(fields[19])), int(fields[11]) + int(fields[12])
    own, found = os.getpid(), {}
    for pid, (process, spent) in ticks.items():
        above = parents[pid]
        while above not in (0, own):
            above = parents.get(above, 0)
        if above == own:
            found[process] = spent
    return found


def _memory_bytes(pid: int) -> int:
    try:
        lines = Path("/proc", str(pid), "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def _machine_cpu_s() -> tuple[float, float]:
    """All that the machine's cores worked so far (user, nice, system, irq, softirq), and what the host withheld."""
    user, nice, system, _, _, irq, softirq, stolen = Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    return sum(map(int, (user, nice, system, irq, softirq))) / _TICKS_PER_S, int(stolen) / _TICKS_PER_S
