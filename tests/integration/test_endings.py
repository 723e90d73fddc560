"""Every kind of job is ended by a signal, at different moments: one line, its exit code, and nothing left behind."""

import json
import random
import shutil
import signal
import tempfile
import time
from pathlib import Path

import psutil
import pytest
import yaml

from bundles import make_bundle
from labelmill.model.registry import Registry
from running import data_files, free_port, label_spec, rows_of, start_labelmill, wait_for
from train.runs import shapes_source
from train.shapes import write_labels, write_shapes
from webhook import webhook

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
WITHIN_S = 30


@pytest.fixture
def temporary():
    """A TMPDIR of the job's own, to see what it leaves there; short, for the sake of Ray's sockets."""
    folder = Path(tempfile.mkdtemp(prefix="lm-"))
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def started(tmp_path, temporary):
    """Starts a job; it is not left behind whatever the test finds."""
    processes = []

    def start(job):
        before = ("env", "--default-signal=HUP,INT")  # the tests may run under nohup, or behind
        run = start_labelmill("run", job, log=tmp_path / "log", before=before, TMPDIR=temporary)
        processes.append(run)
        return run

    yield start
    for process in processes:
        process.kill()
        process.wait()


@pytest.fixture
def hook():
    with webhook(200) as hook:
        yield hook


def numbered(count):
    """So many signals of each kind in turn, some of them sent twice by somebody impatient."""
    return [(list(CODES)[index % 3], index) for index in range(count)]


def assert_ended_by(number, run, log, temporary, *, twice=False):
    """Sends the signal. Returns what the job had said by then and after."""
    children = psutil.Process(run.pid).children(recursive=True)
    run.send_signal(number)
    if twice:
        time.sleep(0.5)
        run.send_signal(number)
    assert run.wait(WITHIN_S) == CODES[number], log.read_text()
    said = log.read_text()
    assert said.splitlines()[-1] == f"stopped by {number.name}"
    assert "Traceback" not in said
    assert "***" not in said, "Ray's own words on a signal"
    assert "\nerror" not in said
    _, alive = psutil.wait_procs([child for child in children if not _is_agent(child)], timeout=30)
    assert alive == []
    assert list(temporary.iterdir()) == []
    return said


def _is_agent(process):
    """Ray's two agents ask after their raylet once a minute, and then go."""
    try:
        return process.name().startswith(("ray::DashboardA", "ray::RuntimeEnv"))
    except psutil.NoSuchProcess:
        return True


def until(words, run, log, *, delay_s=0.0):
    assert wait_for(lambda: words in log.read_text(), run), log.read_text()
    time.sleep(delay_s)


@pytest.mark.long
@pytest.mark.parametrize(("number", "index"), numbered(20))
def test_a_label_run_ends_and_keeps_what_it_has(tmp_path, registry, slow_store, started, temporary, number, index):
    table, log = tmp_path / "labels", tmp_path / "log"
    job = label_spec(tmp_path / "label.yaml", model="tiny@1", registry=registry, images=slow_store, output=table)
    run = started(job)
    moment = ("while Ray starts", "as the workers start", "in the middle", "any")[index % 4]
    if moment == "in the middle":
        assert wait_for(lambda: len(data_files(table)) >= 2, run), log.read_text()
    else:
        until("labelling by" if moment == "as the workers start" else "pictures to label", run, log)
    if moment in ("while Ray starts", "any"):
        time.sleep(random.Random(index).uniform(0, 4 if moment == "any" else 1.5))
    said = assert_ended_by(number, run, log, temporary, twice=index % 5 == 0)
    assert max(table.glob("_labelmill/lease/*.beat")).read_text() == "released"
    receipts = [json.loads(path.read_text()) for path in table.glob("_labelmill/receipts/*.json")]
    if receipts:
        assert "what it committed stays" in said
        assert [receipt["outcome"] for receipt in receipts] == ["stopped"]
        assert receipts[0]["pictures_labelled"] == (len(rows_of(table)) if data_files(table) else 0)
        assert receipts[0]["pictures_labelled"] < len(list(slow_store.iterdir()))


@pytest.fixture(scope="module")
def shapes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shapes")
    write_labels(folder / "labels.csv", write_shapes(folder / "images", 200))
    return folder


@pytest.mark.long
@pytest.mark.parametrize(("number", "index"), numbered(5))
@pytest.mark.parametrize("kind", ["train", "search"])
def test_a_training_ends_and_can_go_on(tmp_path, shapes, started, temporary, kind, number, index):
    log = tmp_path / "log"
    optimize = {"epochs": 500, "batch_size": 16, "learning_rate": 2e-3}
    source = shapes_source(shapes) | {"registry": str(tmp_path / "registry"), "optimize": optimize}
    if kind == "search":
        source |= {"tune": {"trials": 3, "search": {"optimize.learning_rate": {"min": 1e-4, "max": 1e-2}}}}
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(source))
    run = started(tmp_path / "train.yaml")
    epoch = "epoch 2/500" if index % 2 else ("training shapes" if kind == "train" else "trial")
    until(epoch, run, log, delay_s=random.Random(index).uniform(0, 3))
    said = assert_ended_by(number, run, log, temporary, twice=index == 0)
    if index % 2 and kind == "train":
        assert "run the same spec again to go on after epoch " in said
        assert list((tmp_path / "registry/shapes/runs").glob("*/progress.json"))
    assert Registry(str(tmp_path / "registry")).versions("shapes") == []


@pytest.mark.long
@pytest.mark.parametrize(("number", "index"), numbered(5))
def test_an_evaluation_ends_and_writes_no_half_of_a_report(tmp_path, registry, started, temporary, number, index):
    names = write_shapes(tmp_path / "images", 400)
    rows = [f"{name},{('cat', 'dog', 'eel')[position % 3]}" for position, name in enumerate(names)]
    (tmp_path / "labels.csv").write_text("\n".join(["uri,labels", *rows]))
    source = {
        "kind": "evaluate",
        "name": "again",
        "registry": registry,
        "model": "tiny@1",
        "data": {"images": str(tmp_path / "images"), "labels": str(tmp_path / "labels.csv")},
        "output": str(tmp_path / "out"),
        "robustness_pictures": 400,
    }
    (tmp_path / "evaluate.yaml").write_text(yaml.safe_dump(source))
    run = started(tmp_path / "evaluate.yaml")
    assert wait_for(lambda: (tmp_path / "log").exists() and psutil.Process(run.pid).cpu_times().user > 1 + index, run)
    assert_ended_by(number, run, tmp_path / "log", temporary)
    assert not list((tmp_path / "out").glob("*.*"))
    assert max((tmp_path / "out").glob("_labelmill/lease/*.beat")).read_text() == "released"


@pytest.mark.long
@pytest.mark.parametrize(("number", "index"), numbered(5))
@pytest.mark.parametrize("moment", ["starting", "idle"])
def test_an_endpoint_ends(tmp_path, started, temporary, moment, number, index):
    make_bundle(tmp_path / "registry")
    source = {"kind": "serve", "name": "api", "registry": str(tmp_path / "registry"), "model": "tiny@1"}
    (tmp_path / "serve.yaml").write_text(yaml.safe_dump(source | {"port": free_port()}))
    run, log = started(tmp_path / "serve.yaml"), tmp_path / "log"
    if moment == "idle":
        until("api serves tiny@1 at", run, log)
    else:
        time.sleep(random.Random(index).uniform(1.5, 8))
    assert_ended_by(number, run, log, temporary, twice=index == 0)


@pytest.mark.long
@pytest.mark.parametrize("gone", ["raylet", "gcs_server"])
@pytest.mark.parametrize("kind", ["label", "train"])
def test_a_ray_that_dies_ends_a_job_with_one_line(
    tmp_path, registry, slow_store, shapes, started, temporary, hook, kind, gone
):
    log = tmp_path / "log"
    if kind == "label":
        places = {"registry": registry, "images": slow_store, "output": tmp_path / "labels"}
        run = started(label_spec(tmp_path / "label.yaml", model="tiny@1", notify={"url": hook.url}, **places))
        assert wait_for(lambda: len(data_files(tmp_path / "labels")) >= 2, run), log.read_text()
    else:
        optimize = {"epochs": 500, "batch_size": 16, "learning_rate": 2e-3}
        source = shapes_source(shapes) | {"registry": str(tmp_path / "registry"), "optimize": optimize}
        (tmp_path / "train.yaml").write_text(yaml.safe_dump(source))
        run = started(tmp_path / "train.yaml")
        until("epoch 2/500", run, log)
    children = psutil.Process(run.pid).children(recursive=True)
    [part] = [child for child in children if child.name() == gone]
    part.kill()
    code = run.wait(60)
    said = log.read_text()
    assert "Traceback" not in said
    _, alive = psutil.wait_procs([child for child in children if not _is_agent(child)], timeout=30)
    assert alive == []
    if gone == "raylet" and code == 1:
        return  # the first of Ray's own threads that asked its object store has ended this process from within C++
    assert code == 6, said
    assert said.splitlines()[-1].startswith(f"error: Ray's {gone} on this machine ended unexpectedly"), said
    assert list(temporary.iterdir()) == []
    if kind == "label":
        assert [(message["outcome"], message["exit_code"]) for message in hook.got] == [("stopped", 6)]
        assert hook.got[0]["pictures_labelled"] > 0
        assert max((tmp_path / "labels").glob("_labelmill/lease/*.beat")).read_text() == "released"
