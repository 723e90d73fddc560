"""A Ray cluster as its operators start it: one node with a dashboard, behind a token."""

import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from running import free_port

__all__ = ["running"]


@contextmanager
def running(agent_port=None, **environ):
    """The dashboard's address and the token's file, while the cluster lasts. Its nodes have `environ`."""
    with tempfile.TemporaryDirectory(prefix="lm-", ignore_cleanup_errors=True) as folder:  # short, for Ray's sockets
        token = Path(folder, "token")
        token.write_text(secrets.token_hex(16))
        token.chmod(0o600)
        address = f"http://127.0.0.1:{(port := free_port())}"
        settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
        settings |= {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}", **environ}
        mine = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        command = [
            *(str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--port={free_port()}"),
            *("--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", f"--dashboard-port={port}"),
            *("--num-cpus=2", "--object-store-memory=150000000", f"--temp-dir={folder}/ray"),
            # by default a port that any other connection may have
            f"--dashboard-agent-listen-port={agent_port or free_port()}",
        ]
        with Path(folder, "log").open("w") as log:
            head = subprocess.Popen(command, env=mine | settings, stdout=log, stderr=log, start_new_session=True)
            try:
                _wait(address, token.read_text(), head)
                yield address, token
            finally:
                for process in [*psutil.Process(head.pid).children(recursive=True), head]:
                    with suppress(psutil.NoSuchProcess):
                        process.kill()
                head.wait(60)


def _wait(address, token, head):
    request = urllib.request.Request(f"{address}/api/jobs/", headers={"Authorization": f"Bearer {token}"})
    until = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return json.load(answer)
        except OSError:
            assert time.monotonic() < until and head.poll() is None, "the cluster did not start"
            time.sleep(0.2)
