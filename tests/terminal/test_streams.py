"""Streams that are closed, full or read by nobody, and streams that lack characters."""

import fcntl
import os
import subprocess
import sys
import threading

import pytest

from labelmill import cli
from labelmill.table.writer import TableWriter
from labelmill.terminal.streams import open_stream

COMMAND = f'labelmill() {{ {sys.executable} -m labelmill "$@"; }}\n'
NOT_WRITTEN = "error: the output could not be written: {}\n"


def shell(command, **environ):
    """A command as a shell's user types it: (exit code, stdout, stderr)."""
    done = subprocess.run(
        ["bash", "-c", COMMAND + command], capture_output=True, env=os.environ | environ, timeout=60, check=False
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


@pytest.mark.parametrize(
    ("command", "ends"),
    [
        ("labelmill schema >&-", (1, "", NOT_WRITTEN.format("Bad file descriptor"))),
        ("labelmill schema >/dev/full", (1, "", NOT_WRITTEN.format("No space left on device"))),
        ("labelmill --help >/dev/full", (1, "", NOT_WRITTEN.format("No space left on device"))),
        ("labelmill schema >/dev/full 2>&1", (1, "", "")),
        ("labelmill schema >&- 2>&-", (1, "", "")),
        ("labelmill check --offline none.yaml 2>&-", (2, "", "")),
        ("labelmill check --offline none.yaml >&- 2>/dev/full", (2, "", "")),
        ("labelmill chekc <&- 2>/dev/full", (2, "", "")),
        ("labelmill schema | head -1; exit ${PIPESTATUS[0]}", (0, "{\n", "")),
        ("labelmill --version <&- 2>&- | cat; exit ${PIPESTATUS[0]}", (0, "labelmill 0.1.0\n", "")),
        ("labelmill check --offline /dev/stdin <&-", (2, "", "error: /dev/stdin: the file is empty: ")),
    ],
)
def test_a_stream_that_is_closed_or_full_costs_no_more_than_its_line(command, ends, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = shell(command)
    assert (code, out, err[: len(ends[2]) or None]) == ends


def test_an_opened_file_never_takes_the_place_of_a_closed_stream(tmp_path):
    """What Ray, or a library in C, writes to stderr would go into it."""
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys\n"
        "from labelmill.terminal import own_streams\n"
        "with own_streams():\n"
        "    opened = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)\n"
        "    os.system('echo astray; echo astray >&2')\n"
        "    sys.exit(opened)\n"
    )
    assert shell(f"{sys.executable} {program} {tmp_path}/table <&- >&- 2>&-") == (3, "", "")
    assert (tmp_path / "table").read_text() == ""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Runs the command line in this process, with stdout on a device: (exit code, stderr)."""
    monkeypatch.chdir(tmp_path)

    def run_command(*arguments, stdout):
        with open_stream(os.open(stdout, os.O_WRONLY), like=None, closefd=True) as out, monkeypatch.context() as patch:
            with (tmp_path / "stderr").open("w", encoding="utf-8") as err:
                patch.setattr(sys, "argv", ["labelmill", *arguments])
                patch.setattr(sys, "stdout", out)
                patch.setattr(sys, "stderr", err)
                with pytest.raises(SystemExit) as end:
                    cli.main()
            return end.value.code, (tmp_path / "stderr").read_text("utf-8")

    return run_command


@pytest.mark.parametrize(
    "command",
    [
        "labels labels",
        "labels view labels",
        "labels vacuum labels",
        "models architectures",
        "schema",
        "check --offline job.yaml",
        "labels --help",
    ],
)
def test_a_command_that_shows_something_says_that_it_could_not(run, command, tmp_path):
    TableWriter("labels")
    (tmp_path / "job.yaml").write_text(
        "{kind: label, name: n, registry: r, model: 'a@1', images: ./inbox, output: ./labels}"
    )
    assert run(*command.split(), stdout="/dev/null") == (0, "")
    assert run(*command.split(), stdout="/dev/full") == (1, NOT_WRITTEN.format("No space left on device"))


@pytest.mark.parametrize("command", ["labels compact labels", "labels vacuum --delete labels"])
def test_what_is_done_is_done_though_nobody_can_be_told(run, command):
    TableWriter("labels")
    assert run(*command.split(), stdout="/dev/full") == (0, "")


def test_what_a_stream_lost_is_remembered_and_later_lines_are_tried(tmp_path):
    reading, writing = os.pipe()
    stream = open_stream(writing, like=None, closefd=True)
    os.close(reading)
    stream.write("nobody reads this\n")
    stream.flush()
    end = stream.buffer.raw
    assert isinstance(end.lost, BrokenPipeError)
    os.dup2(os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT), writing)
    stream.write("there is room again\n")
    stream.close()
    assert (tmp_path / "log").read_text() == "there is room again\n"


def test_a_pipe_that_does_not_wait_gets_everything():
    """A terminal multiplexer, or ssh, leaves it so for all who share it."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETFL, os.O_NONBLOCK)
    said = "x" * 300_000
    got = bytearray()

    def read():
        while data := os.read(reading, 100_000):
            got.extend(data)

    reader = threading.Thread(target=read)
    reader.start()
    with open_stream(writing, like=None, closefd=True) as stream:
        stream.write(said)
    reader.join()
    assert got.decode() == said


@pytest.mark.parametrize(
    "environ",
    [
        {"PYTHONIOENCODING": "ascii"},
        {"PYTHONIOENCODING": "latin-1:strict"},
        {"LC_ALL": "C"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    ],
)
def test_a_character_that_the_terminal_lacks_is_no_error(environ, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "job.yaml").write_text("{kind: label, name: n, registry: r, model: 'a@1', images: ./i, output: ./日本}")
    (tmp_path / "日\udcff.yaml").write_text("🙂: 1")
    code, out, err = shell("labelmill check --offline job.yaml; labelmill check --offline *[!b].yaml", **environ)
    assert (code, "Traceback" in err) == (2, False)
    assert out.split()[1:] == ["spec", "job.yaml", "valid,", "label", "n"]
    assert err.startswith("error: ") and err.count("\n") == 1
    assert "\\xff.yaml:1: kind: required, and missing" in err
