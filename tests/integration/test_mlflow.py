"""A training run on a real MLflow server."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import labelmill.train
from labelmill.check import check
from labelmill.errors import ClusterError
from labelmill.model.registry import Registry
from labelmill.spec import load_spec
from labelmill.train.job import Job
from labelmill.train.tracking.tracking import Tracking
from train.runs import shapes_source
from train.shapes import write_labels, write_shapes
from train.tracking.test_tracking import progress_of

pytest.importorskip("mlflow", reason="no MLflow client: pip install 'labelmill[mlflow]'")
SERVER = os.environ.get("LABELMILL_TEST_MLFLOW")
needs_server = pytest.mark.skipif(
    not SERVER,
    reason="no MLflow server: python -m venv E && E/bin/pip install mlflow, then LABELMILL_TEST_MLFLOW=E/bin/mlflow",
)
PROGRAM = (
    "import logging, sys, labelmill.train, labelmill.spec; logging.basicConfig(level=logging.INFO); "
    "print(labelmill.train.run(labelmill.spec.load_spec(sys.argv[1])))"
)


class Server:
    """An MLflow server that can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self._port = free.getsockname()[1]
        self.uri = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        command = [str(SERVER), "server", "--host", "127.0.0.1", "--port", str(self._port), "--workers", "1"]
        command += [
            "--backend-store-uri",
            f"sqlite:///{self._folder}/m.db",
            "--artifacts-destination",
            str(self._folder),
        ]
        env = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
        env.pop("PYTHONPATH", None)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, env=env, start_new_session=True, **quiet)
        deadline = time.monotonic() + 120
        while not self._answers():
            assert self._process.poll() is None, "the MLflow server ended by itself"
            assert time.monotonic() < deadline, "the MLflow server did not start"
            time.sleep(0.2)

    def stop(self) -> None:
        os.killpg(self._process.pid, signal.SIGTERM)
        self._process.wait(30)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("mlflow"))
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LABELMILL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")


def spec_file(folder: Path, server_uri: str, experiment: str, **changes: Any) -> Path:
    write_labels(folder / "labels.csv", write_shapes(folder / "images", 120))
    spec = shapes_source(folder) | {"tracking": {"mlflow": server_uri, "experiment": experiment}} | changes
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def only_run(server: Server, experiment: str) -> Any:
    from mlflow import MlflowClient

    client = MlflowClient(server.uri)
    found = client.get_experiment_by_name(experiment)
    (run,) = client.search_runs([found.experiment_id])
    return client, run


def steps(client: Any, run: Any, name: str) -> list[int]:
    return [metric.step for metric in client.get_metric_history(run.info.run_id, name)]


@pytest.mark.long
@needs_server
def test_a_killed_run_is_one_run_on_the_server_with_every_point_once(tmp_path: Path, server: Server):
    optimize = {"epochs": 4, "batch_size": 8, "learning_rate": 3e-3}
    path = spec_file(tmp_path, server.uri, "killed", optimize=optimize)
    command = [sys.executable, "-c", PROGRAM, str(path)]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 240
        while not any(len(json.loads(found.read_text())["epochs"]) for found in tmp_path.rglob("progress.json")):
            assert first.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    subprocess.run(command, capture_output=True, check=True)
    bundle = Registry(str(tmp_path / "registry")).resolve("shapes@1")
    client, run = only_run(server, "killed")
    assert run.info.status == "FINISHED"
    num_steps = -(-84 // 8)
    assert steps(client, run, "validation/map") == [num_steps * epoch for epoch in (1, 2, 3, 4)]
    losses = steps(client, run, "training/loss")
    assert losses == sorted(set(losses))
    assert losses[-1] == num_steps * 4
    assert run.data.params["optimize.learning_rate"] == "0.003"
    assert run.data.params["model.architecture"] == "timm/test_resnet"
    assert run.data.tags["labelmill.bundle.reference"] == "shapes@1"
    assert run.data.tags["labelmill.bundle.uri"] == bundle.uri
    assert run.data.metrics["bundle/test/map"] == pytest.approx(bundle.metrics["test"]["map"])
    artifacts = {found.path for found in client.list_artifacts(run.info.run_id)}
    assert artifacts == {"report.html", "spec.yaml"}
    report = Path(client.download_artifacts(run.info.run_id, "report.html", str(tmp_path)))
    assert report.read_bytes() == bundle.read_file("report.html")


@pytest.mark.long
@needs_server
def test_a_server_that_goes_away_does_not_stop_the_run_and_gets_what_it_missed(
    tmp_path: Path, server: Server, caplog: pytest.LogCaptureFixture
):
    spec = load_spec(spec_file(tmp_path, server.uri, "away")).spec
    tracking = Tracking(Job(spec, ("blue",), str(tmp_path / "registry/shapes/runs/abc"), {"optimize": {"epochs": 4}}))
    tracking.follow(progress_of(1))
    server.stop()
    tracking.follow(progress_of(2))
    tracking.follow(progress_of(3))
    assert sum("the run cannot be followed now: MLflow at http://127.0.0.1" in text for text in caplog.messages) == 1
    server.start()
    tracking.follow(progress_of(4))
    client, run = only_run(server, "away")
    assert steps(client, run, "validation/map") == [20, 40, 60, 80]
    assert run.data.params == {"optimize.epochs": "4"}


@pytest.mark.long
def test_a_server_that_is_not_there_ends_the_run_before_it_starts(tmp_path: Path):
    path = spec_file(tmp_path, "http://127.0.0.1:9", "none")
    finding = next(found for found in check(load_spec(path).spec) if found.subject == "mlflow")
    assert not finding.ok
    assert "no MLflow answers there" in finding.detail
    with pytest.raises(ClusterError, match=r"MLflow at http://127.0.0.1:9 did not do what it was asked"):
        labelmill.train.run(load_spec(path))
