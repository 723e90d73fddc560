"""What lies in deploy/: the manifests are ones, say what the specs say, and watch what there is."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from labelmill.cluster.deploy import deployed
from labelmill.spec import load_spec
from manifests import NEEDS_CRDS, check_manifests

DEPLOY = Path(__file__).parents[1] / "deploy"
OVERLAYS = ["cpu", "gpu-spot", "local"]
NEEDS_KUBECTL = pytest.mark.skipif(not shutil.which("kubectl"), reason="there is no kubectl here")
NEEDS_PROMTOOL = pytest.mark.skipif(
    not shutil.which("promtool"), reason="needs `apt-get install --no-install-recommends prometheus`"
)
# Of Ray itself, as a cluster at work showed them (test_watched.py looks again).
OF_RAY = {
    "ray_data_num_tasks_finished",
    "ray_node_cpu_utilization",
    "ray_node_mem_total",
    "ray_node_mem_used",
    "ray_train_checkpoint_sync_total_time_s",
    "ray_train_controller_state",
    "ray_train_report_total_blocked_time_s",
    "ray_train_worker_group_start_total_time_s",
}


def built(overlay):
    command = ["kubectl", "kustomize", DEPLOY / "kustomize" / "overlays" / overlay]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@NEEDS_CRDS
@NEEDS_KUBECTL
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_builds_and_has_no_field_that_kubernetes_does_not_know(overlay):
    text = built(overlay)
    monitor = next(part for part in yaml.safe_load_all(text) if part["kind"] == "PodMonitor")
    assert monitor["spec"]["podMetricsEndpoints"][0]["port"] == "metrics"  # KubeRay's name for it; no schema is at hand
    text = yaml.safe_dump_all(part for part in yaml.safe_load_all(text) if part["kind"] != "PodMonitor")
    found = check_manifests(text)
    assert {part["metadata"].get("namespace") for part in found} <= {"labelmill", None}
    clusters = {part["metadata"]["name"]: part["spec"] for part in found if part["kind"] == "RayCluster"}
    groups = [group["groupName"] for group in clusters["labelmill"]["workerGroupSpecs"]]
    assert groups == (["cpu", "gpu"] if overlay == "gpu-spot" else ["cpu"])


@pytest.mark.parametrize("file", sorted(DEPLOY.rglob("kustomization.yaml")), ids=lambda file: file.parent.name)
def test_what_a_kustomization_names_is_there(file):
    found = yaml.safe_load(file.read_text())
    named = [*found["resources"], *(patch["path"] for patch in found.get("patches", []) if "path" in patch)]
    assert [name for name in named if not (file.parent / name).exists()] == []


@pytest.mark.parametrize(
    ("spec", "target", "file"), [("label", "cronjob", "nightly"), ("serve", "rayservice", "endpoint")]
)
def test_the_manifests_are_those_of_the_specs(spec, target, file):
    loaded = load_spec(DEPLOY / "specs" / f"{spec}.yaml", environ={}, secrets_are_elsewhere=True)
    assert (DEPLOY / "kustomize" / "base" / f"{file}.yaml").read_text() == deployed(
        loaded, target, image="labelmill:0.1.0"
    )


def test_the_spec_of_the_training_is_one():
    assert load_spec(DEPLOY / "specs" / "train.yaml").spec.kind == "train"


@NEEDS_PROMTOOL
@pytest.mark.parametrize("command", ["check rules alerts.yaml", "test rules alerts_test.yaml"])
def test_alerts_fire_when_they_should(command):
    done = subprocess.run(
        ["promtool", *command.split()], cwd=DEPLOY / "prometheus", capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_has_a_test():
    alerts = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())["groups"]
    tests = (DEPLOY / "prometheus" / "alerts_test.yaml").read_text()
    assert [rule["alert"] for group in alerts for rule in group["rules"] if f"{rule['alert']}\n" not in tests] == []


def named_series():
    """What alerts and dashboards are built on."""
    alerts = yaml.safe_load((DEPLOY / "prometheus" / "alerts.yaml").read_text())["groups"]
    expressions = [rule["expr"] for group in alerts for rule in group["rules"]]
    for file in (DEPLOY / "grafana").glob("*.json"):
        board = json.loads(file.read_text())
        assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
        expressions += [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    return set(re.findall(r"\b(?:ray|labelmill)_[a-z_]+\b(?![\"'])", " ".join(expressions)))


def test_what_is_watched_is_there():
    """A series that was renamed would leave an alert that never fires."""
    package = DEPLOY.parent / "platform" / "labelmill"
    files = [package / "label" / "spread" / "series.py", package / "serve" / "metrics.py"]
    files += (package / "table" / "nights").glob("*.py")
    code = " ".join(file.read_text() for file in files)
    for name in sorted(named_series() - OF_RAY - {"ray_train_run_name", "ray_train_worker_world_rank"}):
        plain = re.sub("_(total|bucket|sum|count)$", "", name.removeprefix("ray_"))
        assert f'"{plain}"' in code or plain.removeprefix("labelmill_nights_") in code, name


def test_the_image_installs_what_the_lock_pins_without_cuda_where_it_is_told(tmp_path):
    """install.sh as the image runs it, with a pip that says what it was asked for."""
    pip = tmp_path / "pip"
    pip.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    pip.chmod(0o755)
    lock = DEPLOY / "requirements.lock"
    run = {"cwd": tmp_path, "env": {"PATH": f"{tmp_path}:/usr/bin:/bin"}, "check": True}
    subprocess.run(["sh", DEPLOY / "install.sh", lock, ""], **run)
    subprocess.run(["sh", DEPLOY / "install.sh", lock, "https://wheels.example/cpu"], **run)
    whole, most, torch = (tmp_path / "asked").read_text().splitlines()
    assert whole == f"install --require-hashes -r {lock}"
    assert most == "install --no-deps --require-hashes -r cpu.lock"
    assert re.fullmatch(
        r"install --no-deps --index-url https://wheels.example/cpu torch==[\d.]+ torchvision==[\d.]+", torch
    )
    names = {line.partition("==")[0] for line in lock.read_text().splitlines() if re.match("[a-z]", line)}
    kept = {
        line.partition("==")[0] for line in (tmp_path / "cpu.lock").read_text().splitlines() if re.match("[a-z]", line)
    }
    assert {name for name in names - kept if not name.startswith(("nvidia-", "cuda-"))} == {
        "torch",
        "torchvision",
        "triton",
    }
    assert len(names - kept) > 10
    assert not {"pytest", "ruff", "moto"} & names  # what only its makers need


def test_the_commands_of_the_readme_that_need_no_cluster_run(tmp_path):
    text = (DEPLOY / "README.md").read_text()
    commands = re.findall(r"^ *\$ (.*)$", text, re.MULTILINE)
    assert len(commands) == 5
    copy = tmp_path / "copy"
    shutil.copytree(DEPLOY, copy / "deploy")
    for command in commands:
        words = command.split()
        if words[0] == "labelmill":
            command = f"{sys.executable} -m {command}"
        elif not shutil.which(words[0]):
            continue
        done = subprocess.run(["sh", "-c", command], cwd=copy, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    for file in ("nightly.yaml", "endpoint.yaml"):
        assert (copy / "deploy/kustomize/base" / file).read_text() == (DEPLOY / "kustomize/base" / file).read_text()
