"""Work on a network in a process of its own.

Importing torch, timm and nncf costs 4 to 8 s and up to a gigabyte, which a labelling worker on a CPU need not pay; nncf
also changes how the whole process logs, and writes progress bars to its output.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from labelmill.model.bundle import Bundle

__all__ = ["child_environment", "run_in_child", "untold"]

# openvino_telemetry reports every conversion to Google Analytics, unasked, unless it believes to be in a CI job.
_UNTOLD = {"CI": "true"}


def run_in_child(module: str, bundle: Bundle, **more: Any) -> str | None:
    """Run `python -m MODULE REQUEST`, where the request is JSON of the bundle's network and what `more` says. Why it
    failed, in a line; None when it did not."""
    request = {
        "architecture": bundle.architecture,
        "num_logits": len(bundle.labels),
        "preprocessing": bundle.preprocessing.to_json(),
        "weights": str(bundle.weights_path()),
        **more,
    }
    child = subprocess.run(
        [sys.executable, "-m", module, json.dumps(request)],
        env=child_environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    if child.returncode == 0:
        return None
    lines = child.stderr.strip().splitlines()
    return lines[-1] if lines else f"it ended with code {child.returncode}"


def child_environment() -> dict[str, str]:
    """The caller's environment and import path; what is converted is told to nobody else."""
    return {**os.environ, **_UNTOLD, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}


@contextmanager
def untold() -> Iterator[None]:
    """The same for what is converted in this process."""
    before = {name: os.environ.get(name) for name in _UNTOLD}
    os.environ.update(_UNTOLD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
