"""The demo, and every command of the README after it, in the folder that a fresh clone is."""

import json
import re
import shlex
import shutil
import signal
import subprocess
import urllib.request
from pathlib import Path

import pytest

from running import environment, labelmill, start_labelmill

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
COMMANDS = [
    line.removeprefix("$ ").partition("  #")[0].strip()
    for block in re.findall(r"```console\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.startswith("$ ")
]
HERE = [command for command in dict.fromkeys(COMMANDS) if command.startswith(".venv/bin/labelmill")]
SERVE = ".venv/bin/labelmill run jobs/serve.yaml"


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A clone after `make demo`: whose recipe is the command that runs here."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "jobs", folder / "jobs")
    assert "demo: setup\n\t.venv/bin/labelmill demo\n" in (ROOT / "Makefile").read_text()
    done = labelmill("demo", cwd=folder, timeout_s=900)
    (folder / "demo.log").write_text(done.stdout + done.stderr)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_demo_trains_a_good_model_and_labels_every_picture_once(clone):
    said = (clone / "demo.log").read_text()
    assert float(re.search(r"mAP on 2,000 unseen pictures, .*: (\d\.\d+)", said)[1]) >= 0.95
    assert "2,000 pictures labelled by digits@1, 12 of them without labels" in said
    assert "nothing to do" in said
    assert "the endpoint on one more picture:" in said
    assert "Traceback" not in said
    [receipt] = [
        receipt
        for path in (clone / "demo" / "labels" / "_labelmill" / "receipts").glob("*.json")
        if (receipt := json.loads(path.read_text()))["outcome"] == "complete"
    ]
    assert receipt["pictures_labelled"] == 2000
    assert sum(receipt["statuses"].values()) == 2000


def test_no_command_of_the_readme_goes_untested():
    curl = [command for command in COMMANDS if command.startswith("curl")]
    assert len(curl) == 1
    assert set(COMMANDS) == {*HERE, *curl, "make demo"}
    assert SERVE in HERE


@pytest.mark.parametrize("command", [command for command in HERE if command != SERVE])
def test_a_command_of_the_readme_does_what_it_says(clone, command):
    _, *arguments = shlex.split(command)
    done = labelmill(*arguments, cwd=clone)
    assert done.returncode == 0, done.stderr


def test_the_endpoint_answers_as_the_readme_says(clone):
    curl = next(command for command in COMMANDS if command.startswith("curl"))
    server = start_labelmill("run", "jobs/serve.yaml", cwd=clone, log=clone / "serve.log")
    try:
        for _ in range(240):
            if "serves digits@current" in (clone / "serve.log").read_text():
                break
            assert server.poll() is None, (clone / "serve.log").read_text()
            try:
                server.wait(0.5)
            except subprocess.TimeoutExpired:
                continue
        asked = subprocess.run(
            shlex.split(curl), cwd=clone, env=environment(), capture_output=True, text=True, check=True
        )
        answer = json.loads(asked.stdout)
        assert answer["model"] == "digits@1"
        assert answer["labels"]
        with urllib.request.urlopen("http://127.0.0.1:8000/") as page:
            assert b"<html" in page.read()
    finally:
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 130


def test_the_readme_is_short_and_names_only_files_that_exist():
    assert len(README.splitlines()) < 200
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_the_specs_in_the_readme_are_the_specs_in_jobs():
    blocks = re.findall(r"```yaml\n# (jobs/\S+)\n(.*?)```", README, re.DOTALL)
    assert sorted(name for name, _ in blocks) == ["jobs/label.yaml", "jobs/serve.yaml", "jobs/train.yaml"]
    for name, text in blocks:
        shown = [line for line in text.splitlines() if line.strip()]
        file = (ROOT / name).read_text().splitlines()
        assert [line for line in shown if line not in file] == [], name
