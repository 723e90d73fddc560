import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from labelmill import __version__, cli

COMMAND = [sys.executable, "-m", "labelmill"]
LABEL = """\
kind: label
name: nightly
registry: ./registry
model: digits@current
images: ./inbox
output: ./labels
"""


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    """Runs the command line in this process: (exit code, stdout, stderr)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LABELMILL_REGISTRY", raising=False)
    monkeypatch.setenv("LABELMILL_CACHE", "cache")
    Path("job.yaml").write_text(LABEL)

    def run_command(*arguments):
        monkeypatch.setattr(sys, "argv", ["labelmill", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run_command


def test_without_arguments_it_prints_help(run):
    code, out, err = run()
    assert (code, err) == (0, "")
    assert "Usage: labelmill" in out
    for command in ("check", "run", "models", "labels", "schema", "demo"):
        assert f"\n  {command} " in out


def test_each_command_explains_itself_with_an_example(run):
    for command in (
        "check",
        "run",
        "models list",
        "models show",
        "models promote",
        "models rollback",
        "models export",
        "models architectures",
        "labels",
        "labels show",
        "labels compact",
        "labels vacuum",
        "labels view",
        "demo",
    ):
        code, out, _ = run(*command.split(), "--help")
        assert (code, f"Example: labelmill {command}" in out) == (0, True), command


def test_version(run):
    assert run("--version") == (0, f"labelmill {__version__}\n", "")


def test_a_valid_spec_passes_offline(run):
    assert run("check", "--offline", "job.yaml") == (0, "✓ spec      job.yaml  valid, label nightly\n", "")


def test_a_spec_error_is_one_message_and_exit_code_2(run):
    code, out, err = run("check", "--offline", "job.yaml", "--set", "scores=tpo_k", "--set", "modle=x")
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "error: job.yaml: 2 mistakes",
        "  --set scores: expected none, top_k or all, got 'tpo_k': did you mean top_k?",
        "  --set modle: no such field: did you mean model?",
    ]
    assert run("run", "none.yaml") == (2, "", "error: none.yaml: no such file: did you mean job.yaml?\n")


def test_the_terminal_is_not_steered_by_what_a_file_says(run):
    Path("job.yaml").write_text(LABEL + '"\\e[31mred": 1\n')
    code, _, err = run("check", "--offline", "job.yaml")
    assert code == 2
    assert "\x1b" not in err
    assert "\\x1b[31mred: no such field" in err


def test_an_unknown_command_is_answered_with_a_near_one(run):
    code, _, err = run("chekc")
    assert code == 2
    assert "Did you mean 'check'?" in err


def test_check_tells_each_place_and_fails_when_one_cannot_be_reached(run):
    Path("inbox").mkdir()
    Path("inbox/1.jpg").write_bytes(b"x")
    code, out, err = run("check", "job.yaml")
    assert (code, err) == (1, "")
    lines = {line.split()[1]: line for line in out.splitlines()}
    assert list(lines) == ["spec", "registry", "model", "images", "output", "cache"]
    assert lines["images"] == "✓ images    ./inbox         reachable, 1 object"
    assert lines["model"].startswith("✗ model     digits@current  no model 'digits'")


def test_schema_prints_the_schema(run):
    code, out, _ = run("schema")
    assert code == 0
    assert json.loads(out)["title"] == "labelmill job spec"


def test_models_are_listed_shown_promoted_and_rolled_back(run):
    from bundles import make_bundle  # takes torch along, which the other tests here need not wait for

    for seed in (1, 2):
        make_bundle("./registry", name="tiny", seed=seed)
    registry = ("--registry", "./registry")
    assert run("models", "promote", "tiny@1", *registry) == (0, "tiny@current is now tiny@1\n", "")
    assert run("models", "promote", "tiny@2", "--reason", "better", *registry) == (
        0,
        "tiny@current is now tiny@2\n",
        "",
    )
    assert run("models", "rollback", "tiny", *registry) == (0, "tiny@current is now tiny@1\n", "")
    code, out, _ = run("models", "list", *registry)
    assert [line.split() for line in out.splitlines()] == [
        ["model", "versions", "newest", "aliases"],
        ["tiny", "2", "2", "current", "->", "1"],
    ]
    code, out, _ = run("models", "show", "tiny@current", *registry)
    assert code == 0
    assert "\x1b" not in out
    shown = [line.split() for line in out.splitlines()]
    assert ["model", "tiny@1"] in shown
    assert [row[1:3] for row in shown if row[:1] == ["current"]] == [["1", "tiny@1"], ["2", "tiny@2"], ["3", "tiny@1"]]


def test_a_model_that_is_not_there_is_an_error_with_exit_code_1(run):
    code, out, err = run("models", "show", "digits@current", "--registry", "./registry")
    assert (code, out) == (1, "")
    assert err.startswith("error: no model 'digits' in ")
    code, out, err = run("models", "list", "--registry", "./registry")
    assert (code, out) == (0, "")
    assert err.startswith("no models in ")


def test_a_label_table_is_shown_merged_and_swept(run):
    from deltalake import DeltaTable

    from labelmill.table.writer import TableWriter

    TableWriter("./labels")
    # A table is shown without a further word, options before or behind it.
    shown = run("labels", "show", "./labels")
    assert shown[::2] == (0, "")
    assert "labels: version 1, 0 files" in shown[1]
    assert run("labels", "./labels") == run("labels", "--limit", "3", "./labels") == shown
    assert run("labels", "compact", "./labels") == (0, "./labels: 0 files before, 0 now\n", "")
    assert run("labels", "vacuum", "./labels") == (0, "0 files, 0.0 MiB to delete; --delete does it\n", "")
    assert run("labels", "vacuum", "--delete", "./labels") == (0, "0 files, 0.0 MiB deleted\n", "")
    assert "delta.`./labels`" in run("labels", "view", "./labels", "--for", "spark")[1]
    assert run("labels", "view", "./labels", "--for", "excel")[0] == 2
    assert DeltaTable("./labels").version() == 2
    code, out, err = run("labels", "vacuum", "./none")
    assert (code, out) == (1, "")
    assert err.startswith("error: there is no label table at ")
    assert "\n  compact " in run("labels", "--help")[1]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_a_command_with_its_code_and_no_traceback(tmp_path, number, code):
    path = tmp_path / "job.yaml"
    os.mkfifo(path)  # opening it waits for a writer that never comes
    command = ["env", "--default-signal=HUP,INT", *COMMAND, "check", str(path)]  # the tests may run under nohup
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_until_opened(process, path)
    process.send_signal(number)
    out, err = process.communicate(timeout=10)
    assert (process.returncode, out, err) == (code, "", f"stopped by {number.name}\n")


def wait_until_opened(process, path):
    """A writer can open a FIFO without waiting only once its reader is there; the reader then waits for bytes."""
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        assert process.poll() is None
        try:
            wait_until_opened.writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise AssertionError("the command never opened its file")


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([*COMMAND, "schema"], stdout=writing, stderr=subprocess.PIPE, text=True, check=False)
    os.close(writing)
    assert done.stderr == ""


def test_a_bug_shows_its_traceback(run, monkeypatch):
    def broken(*_):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("labelmill.spec.load_spec", broken)
    with pytest.raises(ZeroDivisionError):
        run("check", "job.yaml")


def test_architectures_are_listed_by_cost_and_filtered(run):
    code, out, err = run("models", "architectures", "--filter", "resnet10t", "--filter", "timm")
    assert (code, err) == (0, "")
    assert [line.split() for line in out.splitlines()] == [
        ["architecture", "parameters", "pixels", "operations", "pretrained"],
        ["timm/resnet10t", "5.44M", "176", "699M", "yes"],
    ]
    code, out, _ = run("models", "architectures", "--filter", "squeezenet", "--sort", "operations")
    assert [line.split()[0] for line in out.splitlines()[1:]] == [
        "torchvision/squeezenet1_1",
        "torchvision/squeezenet1_0",
    ]
    assert run("models", "architectures", "--filter", "squeezenet", "--max-operations", "0.5G")[1].count("\n") == 2
    assert run("models", "architectures", "--max-parameters", "2k") == (
        1,
        "",
        "no architecture is like that: leave a filter out\n",
    )
    assert "expected a number such as 300000, 5M or 1.5G, got '5X'" in run(
        "models", "architectures", "--max-parameters", "5X"
    )[2].replace("\n", " ")


def test_an_export_to_a_folder_in_use_is_refused(run):
    code, _, err = run("models", "export", "digits@1", ".")
    assert (code, err.startswith("error: no model 'digits' in ")) == (1, True)
    code, _, err = run("models", "export", "digits@1", "out", "--format", "torchscript")
    assert code == 2 and "torchscript" in err
