"""What an earlier version left behind is read and gone on with: a registry, a table, a training that was cut short."""

import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from running import environment, labelmill, rows_of, wait_for
from train.shapes import write_shapes

# Splits of training sets, identities of trainings, etags of folders and leases had other forms then.
EARLIER = os.environ.get("LABELMILL_EARLIER", "33bf0bc696cbf8770153359267bb64d1c85d1be3")
ROOT = Path(__file__).parents[2]
NUM_PICTURES, NUM_EPOCHS = 160, 6


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The package as it was."""
    archive = subprocess.run(
        ["git", "archive", EARLIER, "platform", "jobs"], cwd=ROOT, capture_output=True, check=False
    )
    if archive.returncode:
        pytest.skip(f"needs the project's history back to {EARLIER[:7]}: {archive.stderr.decode().strip()}")
    folder = tmp_path_factory.mktemp("earlier")
    with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as tar:
        tar.extractall(folder, filter="data")
    return folder


@pytest.fixture(scope="module")
def left(earlier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all that it left, of one night and of a training that was stopped."""
    home = tmp_path_factory.mktemp("left")
    for name, labels in write_shapes(home / "set", NUM_PICTURES, one_label=True).items():
        target = home / "set" / labels[0] / name
        target.parent.mkdir(exist_ok=True)
        (home / "set" / name).rename(target)
    write_shapes(home / "store", 40, seed=1)
    (home / "store/damaged.jpg").write_bytes(b"no picture")
    write_spec(home / "train.yaml", training(home, NUM_EPOCHS - 4))
    write_spec(home / "more.yaml", training(home, NUM_EPOCHS))
    write_spec(home / "label.yaml", labelling("shapes@1", home / "store", home / "labels"))
    write_spec(home / "next.yaml", labelling("shapes@2", home / "store", home / "labels"))
    for spec in ("train", "label"):
        assert by(earlier, "run", f"{spec}.yaml", home=home).returncode == 0
    (home / "store/0039.jpg").unlink()
    assert by(earlier, "run", "label.yaml", home=home).returncode == 0
    with (home / "first.log").open("wb") as log:
        training_run = subprocess.Popen(
            [sys.executable, "-m", "labelmill", "run", "more.yaml"],
            cwd=home,
            env=as_of(earlier),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    assert wait_for(lambda: epochs(home) >= 2, training_run), (home / "first.log").read_text()
    training_run.kill()
    training_run.wait()
    return home


def training(home: Path, num_epochs: int) -> dict[str, Any]:
    return {
        "kind": "train",
        "name": "shapes",
        "registry": "registry",
        "task": "multi_class",
        "data": {"images": "set", "labels": "folders"},
        "model": {"architecture": "timm/resnet10t", "weights": "scratch", "image_size_px": 32},
        "optimize": {"epochs": num_epochs, "batch_size": 8, "learning_rate": 2e-3},
        "workers": {"count": 1, "cpus": 1, "gpus": 0},
        "promote": "always",
    }


def labelling(model: str, images: Path, output: Path) -> dict[str, Any]:
    return {
        "kind": "label",
        "name": "nightly",
        "registry": "registry",
        "model": model,
        "images": images.name,
        "output": output.name,
        "scores": "all",
        "engine": "openvino",
    }


def write_spec(path: Path, spec: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(spec))


def as_of(package: Path) -> dict[str, str]:
    return environment(PYTHONPATH=package / "platform")


def by(package: Path, *arguments: str, home: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "labelmill", *arguments]
    return subprocess.run(
        command, cwd=home, env=as_of(package), capture_output=True, text=True, check=False, timeout=300
    )


def epochs(home: Path) -> int:
    """Complete ones of the training that is under way."""
    found = (json.loads(path.read_text()) for path in (home / "registry").glob("shapes/runs/*/progress.json"))
    return max((len(values["epochs"]) for values in found), default=0)


@pytest.mark.long
def test_every_spec_of_then_is_a_spec(earlier: Path):
    specs = sorted((earlier / "jobs").glob("*.yaml"))
    assert specs
    for spec in specs:
        variables = {"REGISTRY": "r", "IMAGES": "i", "OUTPUT": "o"}
        then, now = (
            subprocess.run(
                [sys.executable, "-m", "labelmill", "check", "--offline", spec.name],
                cwd=earlier / "jobs",
                env=as_of(package) | variables,
                capture_output=True,
                text=True,
                check=False,
            )
            for package in (earlier, ROOT)
        )
        assert (then.returncode, now.returncode) == (0, 0), then.stderr + now.stderr


@pytest.mark.long
def test_what_an_earlier_version_left_is_gone_on_with(left: Path):
    before = rows_of(left / "labels")
    assert {row["status"] for row in before} == {"ok", "unsupported", "deleted"}

    nothing = labelmill("run", "label.yaml", cwd=left)
    assert (nothing.returncode, "nothing to do" in nothing.stdout) == (0, True), nothing.stderr
    assert rows_of(left / "labels") == before

    assert "nothing to do" in labelmill("run", "train.yaml", cwd=left).stdout
    resumed = labelmill("run", "more.yaml", cwd=left)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming after epoch " in resumed.stderr
    assert "epoch 1/" not in resumed.stderr
    assert "current -> 2" in labelmill("models", "list", "--registry", "registry", cwd=left).stdout

    write_shapes(left / "new", 2, seed=2)
    for index in range(2):
        (left / f"new/000{index}.jpg").rename(left / f"store/new{index}.jpg")
    (left / "store/0038.jpg").unlink()
    assert labelmill("run", "label.yaml", cwd=left).returncode == 0
    after = {(row["uri"], row["run_id"]): row for row in rows_of(left / "labels")}
    known = {(row["uri"], row["run_id"]): row for row in before}
    assert {key: after[key] for key in known} == known
    new = {uri.rpartition("/")[2]: after[uri, run]["status"] for uri, run in after.keys() - known.keys()}
    assert new == {"new0.jpg": "ok", "new1.jpg": "ok", "0038.jpg": "deleted"}

    assert labelmill("run", "next.yaml", cwd=left).returncode == 0
    labelled = [row for row in rows_of(left / "labels") if row["model"] == "shapes@2"]
    assert len(labelled) == 41 and sum(row["status"] == "ok" for row in labelled) == 40
