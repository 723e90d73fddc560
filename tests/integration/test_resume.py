"""What a kill in the middle of an epoch costs: the work since the last checkpoint, and nothing of the result."""

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

import labelmill.train
from labelmill.model.bundle import Bundle
from labelmill.model.registry import Registry
from labelmill.spec import load_spec
from train.runs import shapes_source
from train.shapes import write_labels, write_shapes

NUM_EPOCHS, NUM_PICTURES, BATCH_SIZE = 3, 280, 8
NUM_STEPS = -(-round(NUM_PICTURES * 0.7) // BATCH_SIZE)  # an epoch
PROGRAM = (
    "import logging, sys, labelmill.train, labelmill.spec; logging.basicConfig(level=logging.INFO); "
    "print(labelmill.train.run(labelmill.spec.load_spec(sys.argv[1])))"
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LABELMILL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    write_labels(folder / "labels.csv", write_shapes(folder / "images", NUM_PICTURES))
    return folder


@pytest.fixture(scope="module")
def undisturbed(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    path = spec_file(pictures, tmp_path_factory.mktemp("undisturbed"))
    return labelmill.train.run(load_spec(path)).bundle


def spec_file(pictures: Path, folder: Path, **changes: Any) -> Path:
    spec = shapes_source(pictures) | {
        "registry": str(folder / "registry"),
        "model": {"architecture": "timm/resnet10t", "weights": "scratch", "image_size_px": 32},
        "optimize": {"epochs": NUM_EPOCHS, "batch_size": BATCH_SIZE, "learning_rate": 2e-3},
        "workers": {"count": 2, "cpus": 0.5, "checkpoint_every_s": 0.3},
    }
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(spec | changes))
    return path


def progress(folder: Path) -> tuple[int, int]:
    """Complete epochs, and steps of the next one, at the last checkpoint."""
    for path in (folder / "registry").glob("shapes/runs/*/progress.json"):
        values = json.loads(path.read_text())
        return len(values["epochs"]), values["step"]
    return 0, 0


def wait_until(condition: Callable[[], bool], ended: Callable[[], str | None], timeout_s: float = 400) -> None:
    """`ended` says how the run ended, should it have."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert ended() is None, ended()
        assert time.monotonic() < deadline, "it took too long"
        time.sleep(0.02)


def kill_within_the_second_epoch(command: list[str], folder: Path) -> None:
    log = folder / "first.log"
    with log.open("wb") as file:
        first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=file)
    try:
        wait_until(
            lambda: is_within_the_second_epoch(folder), lambda: None if first.poll() is None else log.read_text()
        )
    finally:
        first.kill()
        first.wait()


def is_within_the_second_epoch(folder: Path) -> bool:
    num_epochs, step = progress(folder)
    return num_epochs == 1 and step > 0


def assert_like(bundle: Bundle, undisturbed: Bundle) -> None:
    """The same pictures in the same order give the same network, but for what averaging the running statistics does."""
    assert bundle.metrics["epochs"] == NUM_EPOCHS
    for split in ("validation", "test"):
        assert bundle.metrics[split]["map"] == pytest.approx(undisturbed.metrics[split]["map"], abs=0.02)


@pytest.mark.long
def test_a_worker_killed_within_an_epoch_costs_the_steps_since_the_last_checkpoint(
    tmp_path: Path, pictures: Path, undisturbed: Bundle, caplog: pytest.LogCaptureFixture
):
    def kill_one_worker() -> None:
        wait_until(lambda: is_within_the_second_epoch(tmp_path), lambda: None)
        children = psutil.Process().children(recursive=True)
        next(child for child in children if "RayTrainWorker" in " ".join(child.cmdline())).kill()

    killer = threading.Thread(target=kill_one_worker)
    killer.start()
    with caplog.at_level(logging.INFO, logger="labelmill"):
        bundle = labelmill.train.run(load_spec(spec_file(pictures, tmp_path))).bundle
    killer.join()
    lost = next(text for text in caplog.messages if text.startswith("a training worker was lost"))
    assert "going on after epoch 1 and " in lost
    assert 0 < int(lost.rpartition(" and ")[2].split()[0]) < NUM_STEPS
    assert [text[:9] for text in caplog.messages if text.startswith("epoch ")] == [
        f"epoch {number}/3" for number in (1, 2, 3)
    ]
    assert_like(bundle, undisturbed)


@pytest.mark.long
def test_a_driver_killed_within_an_epoch_is_resumed_there_and_has_nothing_to_do_after_the_end(
    tmp_path: Path, pictures: Path, undisturbed: Bundle
):
    command = [sys.executable, "-c", PROGRAM, str(spec_file(pictures, tmp_path))]
    kill_within_the_second_epoch(command, tmp_path)
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    resumed = next(line for line in second.stderr.splitlines() if "resuming after epoch " in line)
    assert "epoch 1 and " in resumed
    assert 0 < int(resumed.partition(" and ")[2].split()[0]) < NUM_STEPS
    assert "epoch 1/3" not in second.stderr
    registry = Registry(str(tmp_path / "registry"))
    assert registry.versions("shapes") == [1]
    assert_like(registry.resolve("shapes@1"), undisturbed)

    third = subprocess.run(command, capture_output=True, text=True, check=True)
    assert third.stdout.startswith("nothing to do: this spec and this data gave shapes@1 already")
    assert registry.versions("shapes") == [1]


@pytest.mark.long
def test_a_run_resumed_by_another_number_of_workers_ends_like_one_that_was_never_cut(
    tmp_path: Path, pictures: Path, undisturbed: Bundle
):
    command = [sys.executable, "-c", PROGRAM, str(spec_file(pictures, tmp_path))]
    kill_within_the_second_epoch(command, tmp_path)
    alone = spec_file(pictures, tmp_path, workers={"count": 1, "checkpoint_every_s": 0.3})
    assert_like(labelmill.train.run(load_spec(alone)).bundle, undisturbed)
