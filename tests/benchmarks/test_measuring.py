"""The benchmarks' own rulers: a wrong one makes every figure wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.pace import cpu_between, rate_between
from benchmarks.store import many_pictures, original_name, unique_pictures

BURN = "import time\nwhile time.process_time() < {seconds}: pass\n"
SHARE = """
import mmap, os, time
shared = mmap.mmap(-1, 200 * 2**20)
for at in range(0, len(shared), 4096): shared[at] = 1
if os.fork() == 0 or os.fork() == 0:
    for at in range(0, len(shared), 4096): shared[at]
time.sleep(2.5)
"""


def cost_of(tmp_path, *command):
    """In a process of its own: measuring makes a process the guardian of all orphans below it."""
    code = (
        "import json, os, sys; from dataclasses import asdict; from pathlib import Path\n"
        "from measuring import measure\n"
        "print(json.dumps(asdict(measure(sys.argv[2:], os.environ, Path(sys.argv[1])))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "log"), *command],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return json.loads(done.stdout) if done.returncode == 0 else done.stderr


def test_a_process_that_outlives_its_parent_is_paid_for(tmp_path):
    orphan = f"{sys.executable} -c '{BURN.format(seconds=1.0)}'"
    cost = cost_of(tmp_path, "sh", "-c", f"({orphan} &)")
    assert 0.7 < cost["cpu_s"] < 2.0


def test_memory_that_processes_share_counts_once(tmp_path):
    cost = cost_of(tmp_path, sys.executable, "-c", SHARE)
    assert 200 * 2**20 < cost["peak_memory_bytes"] < 300 * 2**20


def test_a_failed_run_is_no_result(tmp_path):
    assert "ended with code 3" in cost_of(tmp_path, "sh", "-c", "echo why; exit 3")


def test_a_run_that_hangs_is_ended(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from measuring import measure\n"
        "measure(['sleep', '60'], os.environ, Path(sys.argv[1]), limit_s=0.5)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "log")],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert "sleep 60 ended with code -9" in done.stderr


def test_rate_is_that_of_the_asked_part():
    slow_then_fast = [(10.0, 0), (20.0, 50), (25.0, 50)]
    assert rate_between(slow_then_fast, 0.0, 0.5) == pytest.approx(5)
    assert rate_between(slow_then_fast, 0.5, 1.0) == pytest.approx(10)
    assert rate_between(slow_then_fast, 0.25, 0.75) == pytest.approx(50 / 7.5)


def test_cpu_is_that_of_the_asked_part():
    finished = [(10.0, 50), (20.0, 50)]
    curve = [(0.0, 0.0), (10.0, 30.0), (20.0, 35.0)]  # a costly start
    assert cpu_between(finished, curve, 0.5, 1.0) == pytest.approx(1000 * 5 / 50)


def test_the_store_has_a_name_for_every_picture_and_no_new_bytes(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / "given" / folder).mkdir(parents=True)
        (tmp_path / "given" / folder / "same.jpg").write_bytes(folder.encode())
    unique = unique_pictures(tmp_path / "given", tmp_path)
    store = many_pictures(unique, 5, tmp_path)
    names = sorted(path.name for path in store.iterdir())
    assert len(names) == 5
    assert {original_name(name) for name in names} == {path.name for path in unique}
    assert (store / names[0]).samefile(unique[0])
