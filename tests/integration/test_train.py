"""Training as a user runs it: a real Ray, real workers, real kills."""

import logging
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

import labelmill.train
from labelmill.errors import DataError
from labelmill.model.registry import Registry
from labelmill.spec import load_spec
from labelmill.storage import open_store
from labelmill.train import TrainResult
from running import labelmill as run_labelmill
from train.runs import shapes_source
from train.shapes import write_labels, write_shapes

SPLIT = {"train": 0.7, "validation": 0.15, "test": 0.15, "seed": 1}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LABELMILL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def spec_file(folder: Path, *, epochs: int = 6, weights: str = "scratch", **changes: object) -> Path:
    model = {"architecture": "timm/resnet10t", "weights": weights, "image_size_px": 32}
    optimize = {"epochs": epochs, "batch_size": 16, "learning_rate": 2e-3}
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(shapes_source(folder) | {"model": model, "optimize": optimize} | changes))
    return path


def run(path: Path) -> TrainResult:
    return labelmill.train.run(load_spec(path))


def leftovers(folder: Path) -> list[Path]:
    return [path for path in (folder / "registry" / "shapes" / "runs").rglob("*") if path.is_file()]


def wait_for(condition: Callable[[], bool], process: subprocess.Popen, timeout_s: float = 240) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, f"the run ended by itself with code {process.returncode}"
        assert time.monotonic() < deadline, "the first epoch took too long"
        time.sleep(0.05)


@pytest.mark.long
def test_shapes_are_learnt_by_two_workers_and_published_once(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_labels(tmp_path / "labels.csv", write_shapes(tmp_path / "images", 200))
    damaged = tmp_path / "images" / "0003.jpg"
    damaged.write_bytes(damaged.read_bytes()[:40])
    with caplog.at_level(logging.INFO, logger="labelmill"):
        result = run(spec_file(tmp_path))
    assert "epoch 6/6  loss 0." in caplog.text
    assert result.bundle.metrics["test"]["map"] > 0.9
    assert result.bundle.metrics["unreadable"].keys() == {str(damaged)}
    assert "is current now: there was no current version" in str(result)
    registry = Registry(str(tmp_path / "registry"))
    assert registry.aliases("shapes") == {"current": 1}
    assert "0003.jpg" in registry.resolve("shapes@current").read_file("report.html").decode()
    assert not leftovers(tmp_path)

    again = run(spec_file(tmp_path, workers={"count": 1}, promote="always"))
    assert again.promotion is None
    assert str(again).startswith("nothing to do: this spec and this data gave shapes@1 already")
    assert registry.versions("shapes") == [1]


@pytest.mark.long
def test_a_killed_run_goes_on_after_its_last_epoch_and_publishes_one_version(tmp_path: Path):
    write_labels(tmp_path / "labels.csv", write_shapes(tmp_path / "images", 120))
    path = spec_file(tmp_path, epochs=4)
    program = (
        "import logging, labelmill.train, labelmill.spec; logging.basicConfig(level=logging.INFO); "
        f"labelmill.train.run(labelmill.spec.load_spec({str(path)!r}))"
    )
    runs = tmp_path / "registry" / "shapes" / "runs"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: any(runs.glob("*/progress.json")), process)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    second = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    assert "resuming after epoch " in second.stderr
    assert "epoch 1/4" not in second.stderr
    assert "epoch 4/4" in second.stderr
    registry = Registry(str(tmp_path / "registry"))
    assert registry.versions("shapes") == [1]
    assert registry.resolve("shapes@1").metrics["epochs"] == 4
    assert not leftovers(tmp_path)


def test_more_than_this_machine_has_is_refused_before_anything_waits_for_it(tmp_path: Path):
    write_labels(tmp_path / "labels.csv", write_shapes(tmp_path / "images", 30))
    done = run_labelmill("run", spec_file(tmp_path, workers={"count": 2, "cpus": 400}))
    assert done.returncode == 1
    assert re.search(r"^error: 2 workers with 400 CPUs each want 800.*Lower workers.count", done.stderr, re.MULTILINE)


def test_batches_too_small_to_share_are_refused_before_ray_starts(tmp_path: Path):
    write_labels(tmp_path / "labels.csv", write_shapes(tmp_path / "images", 30))
    with pytest.raises(DataError, match=r"17 workers cannot share batches of 16 .*Lower workers.count"):
        run(spec_file(tmp_path, workers={"count": {"min": 1, "max": 17}}))


@pytest.mark.long
def test_folders_are_classes_for_as_many_workers_as_there_is_room_for(tmp_path: Path):
    for name, labels in write_shapes(tmp_path / "flat", 150, one_label=True).items():
        target = tmp_path / "images" / labels[0] / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(tmp_path / "flat" / name, target)
    data = {"images": str(tmp_path / "images"), "labels": "folders", "split": SPLIT}
    workers = {"count": {"min": 1, "max": 2}, "cpus": 0.5}
    bundle = run(spec_file(tmp_path, task="multi_class", data=data, workers=workers)).bundle
    assert bundle.labels == ("blue", "green", "red")
    assert bundle.metrics["headline"]["name"] == "accuracy"
    assert bundle.metrics["headline"]["value"] == bundle.metrics["test"]["accuracy"] > 0.8


@pytest.mark.long
def test_binary_answers_with_the_positive_label_alone_on_one_worker(tmp_path: Path):
    labels = write_shapes(tmp_path / "images", 150)
    write_labels(tmp_path / "labels.csv", {name: ["red"] if "red" in words else [] for name, words in labels.items()})
    bundle = run(spec_file(tmp_path, task="binary", workers={"count": 1})).bundle
    assert bundle.labels == ("red",)
    assert len(bundle.thresholds) == 1
    assert bundle.metrics["test"]["map"] > 0.9


@pytest.mark.long
def test_training_from_s3_into_s3_and_on_from_a_published_version(tmp_path: Path, s3: str):
    store = open_store(s3)
    labels = write_shapes(tmp_path / "images", 90)
    write_labels(tmp_path / "labels.csv", labels)
    store.write("labels.csv", (tmp_path / "labels.csv").read_bytes())
    for name in labels:
        store.write(f"pictures/{name}", (tmp_path / "images" / name).read_bytes())
    there = {
        "data": {"images": f"{s3}/pictures", "labels": f"{s3}/labels.csv", "split": SPLIT},
        "registry": f"{s3}/registry",
    }
    first = run(spec_file(tmp_path, epochs=3, **there))
    assert first.bundle.reference == "shapes@1"
    assert not list(store.keys("registry/shapes/runs/"))
    second = run(spec_file(tmp_path, epochs=2, weights="shapes@1", **there))
    assert second.bundle.reference == "shapes@2"
    assert second.bundle.metrics["test"]["map"] >= first.bundle.metrics["test"]["map"] - 0.1
    assert second.promotion is not None
    assert "shapes@1 has" in second.promotion.reason


@pytest.mark.long
def test_too_many_damaged_pictures_end_the_run_in_one_clear_error(tmp_path: Path):
    write_labels(tmp_path / "labels.csv", write_shapes(tmp_path / "images", 60))
    for path in sorted((tmp_path / "images").glob("*.jpg"))[::3]:
        path.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"pictures cannot be read, and max_unreadable_rate allows 0.05"):
        run(spec_file(tmp_path))
    assert Registry(str(tmp_path / "registry")).versions("shapes") == []


@pytest.mark.long
def test_a_killed_worker_costs_no_more_than_its_epoch(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    write_labels(tmp_path / "labels.csv", write_shapes(tmp_path / "images", 120))

    def kill_one_worker() -> None:
        while not any((tmp_path / "registry").rglob("progress.json")):
            time.sleep(0.05)
        children = psutil.Process().children(recursive=True)
        next(child for child in children if "RayTrainWorker" in " ".join(child.cmdline())).kill()

    killer = threading.Thread(target=kill_one_worker)
    killer.start()
    with caplog.at_level(logging.INFO, logger="labelmill"):
        result = run(spec_file(tmp_path))
    killer.join()
    assert "a training worker was lost" in caplog.text
    shown = [record.getMessage()[:9] for record in caplog.records if record.getMessage().startswith("epoch ")]
    assert shown == [f"epoch {number}/6" for number in range(1, 7)]
    assert result.bundle.metrics["epochs"] == 6


@pytest.mark.long
def test_what_the_data_has_to_tell_stands_in_the_bundle(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    labels = write_shapes(tmp_path / "images", 240)
    wrong = [f"{number:04d}.jpg" for number in range(0, 240, 12)]
    given = {name: [] if words and name in wrong else words for name, words in labels.items()}
    for number in range(3):
        shutil.copy(tmp_path / "images" / f"{number:04d}.jpg", tmp_path / "images" / f"copy{number}.jpg")
        given[f"copy{number}.jpg"] = given[f"{number:04d}.jpg"]
    write_labels(tmp_path / "labels.csv", given)
    more = write_shapes(tmp_path / "more", 40, seed=9, one_label=True)
    for name, words in more.items():
        (tmp_path / "synthetic" / words[0]).mkdir(parents=True, exist_ok=True)
        shutil.move(tmp_path / "more" / name, tmp_path / "synthetic" / words[0] / name)
    data = {
        "images": str(tmp_path / "images"),
        "labels": str(tmp_path / "labels.csv"),
        "split": {"train": 0.5, "validation": 0.25, "test": 0.25, "seed": 1},
        "sources": [{"images": str(tmp_path / "synthetic"), "labels": "folders", "weight": 0.5}],
    }
    metrics = run(spec_file(tmp_path, epochs=8, data=data)).bundle.metrics
    found = metrics["findings"]["data"]
    assert found["duplicates"]["num_exact"] == 3
    assert found["sources"][0]["num_pictures"] == 40
    assert {Path(row["uri"]).name for row in found["suspects"]["pictures"]} & set(wrong)
    assert all(row["split"] in ("validation", "test") for row in found["suspects"]["pictures"])
    assert metrics["test"]["map"] > 0.7
