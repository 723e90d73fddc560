"""One process at a time on a training run, and no run that goes on with what another was asked for."""

import json
import signal
import time
from pathlib import Path

import pytest
import yaml

from labelmill.model.registry import Registry
from running import labelmill, start_labelmill
from train.runs import shapes_source
from train.shapes import write_labels, write_shapes
from webhook import Webhook, webhook

NUM_EPOCHS = 8


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LABELMILL_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def spec_file(folder: Path, hook: Webhook) -> Path:
    write_labels(folder / "labels.csv", write_shapes(folder / "images", 80))
    spec = shapes_source(folder) | {
        "optimize": {"epochs": NUM_EPOCHS, "batch_size": 8, "learning_rate": "${LR}"},
        "workers": {"count": 1, "cpus": 0.5, "checkpoint_every_s": 0.3},
        "notify": {"url": hook.url},
    }
    path = folder / "train.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def num_epochs(folder: Path) -> int:
    """Of the unfinished runs, those of the one that came farthest."""
    paths = (folder / "registry/shapes/runs").glob("*/progress.json")
    return max((len(json.loads(path.read_text())["epochs"]) for path in paths), default=0)


@pytest.mark.long
def test_a_second_start_is_refused_and_another_rate_is_another_run(tmp_path: Path):
    with webhook(200) as hook:
        refused_killed_and_resumed(tmp_path, hook)
    ends = [(message["kind"], message["outcome"], message["exit_code"], message.get("model")) for message in hook.got]
    assert ends == [
        ("train", "skipped", 5, None),
        ("train", "complete", 0, "shapes@1"),
        ("train", "killed", 137, None),
        ("train", "complete", 0, "shapes@2"),
        ("train", "nothing to do", 0, "shapes@1"),
    ]


def refused_killed_and_resumed(tmp_path: Path, hook: Webhook):
    path, registry = spec_file(tmp_path, hook), Registry(str(tmp_path / "registry"))
    first = start_labelmill("run", path, log=tmp_path / "log", LR="0.003")
    try:
        deadline = time.monotonic() + 240
        while not num_epochs(tmp_path):
            assert first.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        second = labelmill("run", path, timeout_s=600, LR="0.003")
        assert second.returncode == 5, second.stderr
        [line] = [line for line in second.stderr.splitlines() if line.startswith("error: ")]
        assert f"is being written by job 'shapes', process {first.pid} on" in line
        assert first.poll() is None
    finally:
        first.send_signal(signal.SIGKILL)
        first.wait()

    other = labelmill("run", path, timeout_s=600, LR="0.01")
    assert other.returncode == 0, other.stderr
    assert "this run starts anew" in other.stderr
    assert "optimize.learning_rate was another" in other.stderr
    assert f"epoch 1/{NUM_EPOCHS}" in other.stderr
    bundle = registry.resolve("shapes@1")
    assert bundle.spec["optimize"]["learning_rate"] == 0.01
    assert bundle.metrics["epochs"] == NUM_EPOCHS

    resumed = labelmill("run", path, timeout_s=600, LR="0.003")
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming after epoch" in resumed.stderr
    assert f"epoch 1/{NUM_EPOCHS}" not in resumed.stderr
    assert registry.resolve("shapes@2").spec["optimize"]["learning_rate"] == 0.003
    assert registry.versions("shapes") == [1, 2]
    assert not [path for path in (tmp_path / "registry/shapes/runs").rglob("*") if path.is_file()]
    assert "nothing to do" in labelmill("run", path, timeout_s=600, LR="0.01").stdout
