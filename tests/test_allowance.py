"""Cores and memory are counted as this process may use them: of `taskset`, cpusets and both kinds of control groups."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from labelmill import allowance
from labelmill.allowance import cores_here, memory_bytes


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(allowance, "_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(allowance, "_OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(allowance.psutil, "virtual_memory", lambda: SimpleNamespace(total=1 << 50))
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")


@pytest.mark.parametrize(
    ("own", "files", "expected"),  # for version 1 what stands in the files of quota and period
    [
        ("0::/", {}, 8),
        ("0::/", {"cpu.max": "max 100000"}, 8),
        ("0::/", {"cpu.max": "150000 100000"}, 1),
        ("0::/", {"cpu.max": "50000 100000"}, 1),
        ("0::/", {"cpu.max": "300000 100000"}, 3),
        ("0::/", {"cpu.max": "6400000 100000"}, 8),
        ("0::/a.slice/b.service", {"a.slice/b.service/cpu.max": "400000 100000"}, 4),
        ("0::/a.slice/b", {"a.slice/b/cpu.max": "400000 100000", "a.slice/cpu.max": "200000 100000"}, 2),
        ("0::/../host", {"cpu.max": "200000 100000"}, 2),
        ("4:cpu,cpuacct:/", {"cpu,cpuacct/": "-1 100000"}, 8),
        ("4:cpu,cpuacct:/x", {"cpu,cpuacct/x/": "250000 100000"}, 2),
        ("4:cpu,cpuacct:/host", {"cpu/": "300000 100000"}, 3),
        ("3:cpuset:/x\n2:memory:/x", {"cpuset/x/cpu.max": "100000 100000"}, 8),
        ("0::/", {"cpu.max": "nonsense"}, 8),
    ],
)  # fmt: skip
def test_what_a_control_group_gives_bounds_the_cores(groups, own, files, expected):
    write(groups / "own", own)
    for name, text in files.items():
        if name.endswith("/"):
            for part, number in zip(("quota", "period"), text.split(), strict=True):
                write(groups / "cgroup" / name / f"cpu.cfs_{part}_us", number)
        else:
            write(groups / "cgroup" / name, text)
    assert cores_here() == expected


@pytest.mark.parametrize(
    ("own", "files", "expected"),
    [
        ("0::/job", {"memory.max": "max", "job/memory.max": "4294967296"}, 4 << 30),
        ("0::/job/inner", {"job/memory.max": "4294967296", "job/inner/memory.max": "max"}, 4 << 30),
        ("0::/seen/from/outside", {"memory.max": "2147483648"}, 2 << 30),
        ("4:cpu,memory:/job\n0::/", {"memory/job/memory.limit_in_bytes": "1073741824"}, 1 << 30),
        ("0::/", {}, 1 << 50),
    ],
)
def test_what_a_control_group_leaves_bounds_the_memory(groups, own, files, expected):
    write(groups / "own", own)
    for name, text in files.items():
        write(groups / "cgroup" / name, text)
    assert memory_bytes() == expected


def test_a_system_without_control_groups_has_what_it_has(groups):
    assert (cores_here(), memory_bytes()) == (8, 1 << 50)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")
def test_a_job_under_taskset_counts_what_it_may_use_as_training_does():
    script = "from labelmill.cluster import resources_at_hand; print(resources_at_hand().cpus)"
    one = str(min(os.sched_getaffinity(0)))
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    done = subprocess.run(
        ["taskset", "-c", one, sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environ
    )
    assert done.stdout.strip() == "1"
