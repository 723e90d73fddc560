"""Running the command line as a user does, in processes of its own."""

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import yaml

__all__ = ["data_files", "free_port", "label_spec", "labelmill", "rows_of", "start_labelmill", "wait_for"]


def environment(**more):
    """The caller's, without a Ray cluster of its own."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    return environ | {name: str(value) for name, value in more.items()}


def labelmill(*arguments, cwd=None, timeout_s=300, **environ):
    """Run a command to its end; the result has returncode, stdout and stderr."""
    return subprocess.run(
        [sys.executable, "-m", "labelmill", *map(str, arguments)],
        cwd=cwd,
        env=environment(**environ),
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
    )


def start_labelmill(*arguments, cwd=None, log=None, before=(), **environ):
    """Start a command, with other words `before` it, and leave it running; its output goes to the file `log`."""
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND) if log else subprocess.DEVNULL
    return subprocess.Popen(
        [*before, sys.executable, "-m", "labelmill", *map(str, arguments)],
        cwd=cwd,
        env=environment(**environ),
        stdout=output,
        stderr=subprocess.STDOUT,
    )


def label_spec(file, **fields):
    """Write the spec of a label job; returns its path."""
    defaults = {"kind": "label", "name": "test", "scores": "all", "engine": "openvino"}
    Path(file).write_text(
        yaml.safe_dump(defaults | {n: v if isinstance(v, dict) else str(v) for n, v in fields.items()})
    )
    return file


def rows_of(table):
    """All rows of a label table, by uri then run."""
    from labelmill.table.table import LabelTable

    return LabelTable(str(table)).query("SELECT * FROM labels ORDER BY uri, run_id")


def data_files(table):
    """The data files of a table in a folder, committed or not."""
    return list(Path(table).glob("labelled_on=*/*.parquet"))


def wait_for(condition, process, timeout_s=400):
    """Whether the condition came true while the process lived."""
    until = time.monotonic() + timeout_s
    while time.monotonic() < until and process.poll() is None:
        if condition():
            return True
        time.sleep(0.005)
    return False


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
