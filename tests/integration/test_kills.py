"""Killed at any moment, and run again: nothing is lost, and nothing is there twice.

The moments are drawn from a seed that every test's name ends with; LABELMILL_TEST_SEED draws others.
"""

import json
import os
import random
import signal
import time
from contextlib import contextmanager

import psutil
import pytest
from deltalake import DeltaTable

import two_nodes
from promise import assert_the_promise
from running import data_files, label_spec, labelmill, rows_of, start_labelmill, wait_for

SEED = int(os.environ.get("LABELMILL_TEST_SEED", "1"))
# Of each, in the long mode; in the short one the first of each, but for the GPU's.
KILLS = {"driver": 12, "worker": 10, "raylet": 6, "gpu": 4}
_HELPERS = ("_StatsActor", "_AutoscalingCoordinatorActor", "ActorLocationTracker")  # a Ray for one job has none
FILES = 6  # that a run over the slow store writes


def moments():
    """(victim, files that the run has written, seconds after that), the same for the same seed."""
    for victim, count in KILLS.items():
        for number in range(count):
            rng = random.Random(f"{SEED} {victim} {number}")
            # Before the first file only the driver has anything to lose; two files more may come at the same moment.
            files = rng.randint(0 if victim == "driver" and number else 1, FILES - 3)
            delay_s = rng.uniform(0, 1 if files else 5)
            yield pytest.param(
                victim,
                files,
                delay_s,
                marks=pytest.mark.long if number or victim == "gpu" else (),
                id=f"{victim}-after-{files}-files-and-{delay_s:.2f}s-seed-{SEED}",
            )


@pytest.mark.parametrize(("victim", "files", "delay_s"), list(moments()))
def test_whatever_dies_each_picture_ends_as_one_row(tmp_path, registry, slow_store, victim, files, delay_s):
    table = tmp_path / "labels"
    engine = "torch" if victim == "gpu" else "openvino"
    places = {"registry": registry, "images": slow_store, "output": table}
    job = label_spec(tmp_path / "label.yaml", model="tiny@1", engine=engine, **places)
    clusters = {"raylet": _cluster(), "gpu": _cluster("1")}  # a GPU by name: what torch does there, it does on the CPU
    with clusters.get(victim) or _own_ray() as (environ, raylet):
        run = start_labelmill("run", job, log=tmp_path / "log", **environ)
        try:
            assert wait_for(lambda: len(data_files(table)) >= files, run), (tmp_path / "log").read_text()
            time.sleep(delay_s)
            if run.poll() is not None:
                pytest.skip("the run was over before its moment came: with this many cores it takes more pictures")
            children = psutil.Process(run.pid).children(recursive=True)
            assert not [title for title in map(_title, children) if any(name in title for name in _HELPERS)]
            _kill(victim, run, raylet)
            before = _committed_rows(table)
            code = run.wait(600)
        finally:
            run.kill()
            run.wait()
        log = (tmp_path / "log").read_text()
        assert (code == -signal.SIGKILL) if victim == "driver" else (code == 0), log
        again = labelmill("run", job, timeout_s=600, **environ)
    assert again.returncode == 0, again.stderr
    rows = assert_the_promise(table, slow_store.iterdir())
    # What was committed before the kill was not labelled again.
    assert {row["uri"]: row["run_id"] for row in rows if row["uri"] in before} == before
    if victim == "driver":
        _assert_all_gone(children)
    else:
        receipt = json.loads(min(table.glob("_labelmill/receipts/*.json")).read_text())
        assert (receipt["outcome"], receipt["pictures_labelled"]) == ("complete", len(rows))


def _kill(victim, run, raylet):
    if victim == "driver":
        run.kill()
    elif victim == "worker":
        workers = [p for p in psutil.Process(run.pid).children(recursive=True) if "LabelOnCore" in _title(p)]
        assert workers
        random.Random(SEED).choice(workers).kill()
    elif victim == "gpu":
        [process] = [p for p in psutil.process_iter() if "ShowToNetworks" in _title(p)]
        process.kill()
    else:
        os.kill(raylet, signal.SIGKILL)


def _committed_rows(table):
    if not DeltaTable.is_deltatable(str(table)):
        return {}
    return {row["uri"]: row["run_id"] for row in rows_of(table)}


def _assert_all_gone(children):
    """Nothing that could still work is left. Ray's two agents ask after their raylet once a minute, and then go."""
    agents = ("ray::DashboardA", "ray::RuntimeEnv")
    _, alive = psutil.wait_procs([child for child in children if not _name(child).startswith(agents)], timeout=30)
    assert alive == []


def _title(process):
    """As Ray has it: ray::MapWorker(MapBatches(LabelOnCore))."""
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def _name(process):
    try:
        return process.name()
    except psutil.NoSuchProcess:
        return ""


@contextmanager
def _own_ray():
    yield {}, None


@contextmanager
def _cluster(*arguments):
    with two_nodes.running(*arguments) as nodes:
        yield {"RAY_ADDRESS": nodes["address"]} | two_nodes.SETTINGS, nodes["raylet"]
