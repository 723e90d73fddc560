"""A search as a user runs it: Ray Tune, real trials, a real kill."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

import labelmill.train
from labelmill.errors import DataError
from labelmill.model.registry import Registry
from labelmill.spec import load_spec
from train.runs import shapes_source
from train.shapes import write_labels, write_shapes

BAD_RATE = 1e-6
NUM_EPOCHS, NUM_TRIALS = 4, 7
PROGRAM = (
    "import logging, sys, labelmill.train, labelmill.spec; logging.basicConfig(level=logging.INFO); "
    "print(labelmill.train.run(labelmill.spec.load_spec(sys.argv[1])))"
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LABELMILL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def spec_file(folder: Path, *, num_pictures: int = 160, **tune: Any) -> Path:
    write_labels(folder / "labels.csv", write_shapes(folder / "images", num_pictures))
    rates = {"min": 1e-5, "max": 1e-1, "scale": "log"}
    spec = shapes_source(folder) | {
        "model": {"architecture": "timm/resnet10t", "weights": "scratch", "image_size_px": 32},
        "optimize": {"epochs": NUM_EPOCHS, "batch_size": 16, "learning_rate": BAD_RATE},
        "tune": {"trials": NUM_TRIALS, "reduction": 2, "search": {"optimize.learning_rate": rates}} | tune,
    }
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


@pytest.mark.long
def test_a_search_finds_a_better_learning_rate_than_the_bad_one_given(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, logger="labelmill"):
        bundle = labelmill.train.run(load_spec(spec_file(tmp_path))).bundle
    search = bundle.metrics["findings"]["search"]
    trials = search["trials"]
    assert search["fields"] == {"optimize.learning_rate": "log"}
    assert [trial["number"] for trial in trials] == list(range(1, NUM_TRIALS + 1))
    given, best = trials[0], trials[search["best"] - 1]
    assert given["values"] == {"optimize.learning_rate": BAD_RATE}
    assert best["values"]["optimize.learning_rate"] > 1e-4
    assert best["metric"] > given["metric"] + 0.15
    assert best["metric"] == max(trial["metric"] for trial in trials) == max(best["curve"])
    assert best["epochs"] == bundle.metrics["epochs"]
    assert any(trial["stopped_early"] for trial in trials)
    assert sum(trial["epochs"] for trial in trials) < NUM_TRIALS * NUM_EPOCHS
    assert bundle.metrics["test"]["map"] > given["metric"] + 0.15
    assert "trial 1/7  epoch 1/4  validation map" in caplog.text
    assert not [path for path in (tmp_path / "registry/shapes/runs").rglob("*") if path.is_file()]


@pytest.mark.long
def test_a_killed_search_goes_on_and_repeats_no_trial_that_had_ended(tmp_path: Path):
    command = [sys.executable, "-c", PROGRAM, str(spec_file(tmp_path))]
    first = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def ended() -> set[str]:
        return {number for path in tmp_path.rglob("search.json") for number in json.loads(path.read_text() or "{}")}

    try:
        deadline = time.monotonic() + 240
        while len(ended()) < 2:
            assert first.poll() is None, "the search ended by itself"
            assert time.monotonic() < deadline, "it took too long"
            time.sleep(0.05)
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
    before = ended()
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    assert f"resuming the search: {len(before)} of {NUM_TRIALS} trials have ended" in second.stderr
    assert not [number for number in before if f"trial {number}/{NUM_TRIALS}  epoch" in second.stderr]
    bundle = Registry(str(tmp_path / "registry")).resolve("shapes@1")
    trials = bundle.metrics["findings"]["search"]["trials"]
    assert [trial["number"] for trial in trials if trial["epochs"]] == list(range(1, NUM_TRIALS + 1))


@pytest.mark.long
def test_trials_that_diverge_do_not_end_the_search_unless_all_do(tmp_path: Path):
    rates = {"search": {"optimize.learning_rate": [1e30, 2e-3]}, "trials": 4}
    bundle = labelmill.train.run(load_spec(spec_file(tmp_path, num_pictures=90, **rates))).bundle
    trials = bundle.metrics["findings"]["search"]["trials"]
    failed = [trial for trial in trials if trial["failure"]]
    assert failed
    assert {trial["values"]["optimize.learning_rate"] for trial in failed} == {1e30}
    assert "the loss is no longer a number" in failed[0]["failure"]
    with pytest.raises(DataError, match=r"none of 2 trials could be trained; the first: the loss is no longer"):
        labelmill.train.run(
            load_spec(
                spec_file(tmp_path, num_pictures=90, trials=2, search={"optimize.learning_rate": [1e30, 1e31]}),
                ["optimize.learning_rate=1e30", "optimize.warmup_epochs=0"],
            )
        )
