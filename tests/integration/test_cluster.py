"""A local Ray is nobody else's: what listens, where, and what it says to a stranger."""

import json
import os
import re
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from running import label_spec, labelmill

SCRIPT = """
import json, os, sys
import psutil
from labelmill.cluster import connect

with connect(num_cpus=1) as resources:
    import ray
    assert ray.get(ray.remote(num_cpus=1)(lambda: 7).remote()) == 7
    me = psutil.Process()
    listening = [
        (connection.laddr.ip, connection.laddr.port, process.name())
        for process in [me, *me.children(recursive=True)]
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
    token = os.environ["RAY_AUTH_TOKEN_PATH"]
    address = ray.get_runtime_context().gcs_address
    processes = [" ".join(process.cmdline()) for process in me.children(recursive=True)]
    found = {"listening": listening, "mode": os.stat(token).st_mode, "token": token, "address": address}
    print(json.dumps(found | {"processes": processes}))
    sys.stdout.flush()
    sys.stdin.readline()
import ray.exceptions
try:
    ray.put(7)  # what a thread of Ray's own libraries may still do
except ray.exceptions.RaySystemError:
    print("down")
else:
    print("a second Ray is up")
"""

STRANGER = """
import sys, ray
ray.init(address=sys.argv[1], log_to_driver=False)
print("connected", ray.cluster_resources())
"""


def test_a_local_ray_keeps_strangers_out(tmp_path: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    run = subprocess.Popen(
        [sys.executable, "-c", SCRIPT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ
    )
    try:
        found = json.loads(run.stdout.readline())
        assert len(found["listening"]) > 5
        elsewhere = [entry for entry in found["listening"] if not _is_loopback(entry[0])]
        assert elsewhere == []
        assert stat.S_IMODE(found["mode"]) == 0o600
        # A job's own Ray has nobody to serve: these take seconds to start, and to end.
        idle = [name for name in found["processes"] if re.search(r"dashboard/dashboard\.py|monitor\.py", name)]
        assert idle == []

        # Another user of this machine can reach loopback, but not the token.
        environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64, "HOME": str(tmp_path)}
        environ |= {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
        refused = subprocess.run(
            [sys.executable, "-c", STRANGER, found["address"]], env=environ, capture_output=True, text=True, timeout=120
        )
        assert refused.returncode != 0
        assert "connected" not in refused.stdout
        assert "oken" in refused.stderr
    finally:
        out, _ = run.communicate("\n", timeout=60)
    assert "down" in out
    assert not Path(found["token"]).exists()


def _is_loopback(ip: str) -> bool:
    return ip in ("127.0.0.1", "::1", "::ffff:127.0.0.1")


@pytest.mark.parametrize("somebody", [False, True], ids=["nobody", "not Ray"])
def test_a_wrong_address_is_said_within_seconds(tmp_path, registry, somebody):
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a.png")
    job = label_spec(
        tmp_path / "job.yaml", registry=registry, model="tiny@1", images=tmp_path / "images", output=tmp_path / "labels"
    )
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        if somebody:
            server.listen()
        address = f"127.0.0.1:{server.getsockname()[1]}"
        began = time.monotonic()
        done = labelmill("run", job, RAY_ADDRESS=address)
        assert time.monotonic() - began < 25  # 15 from when it is asked for, which takes an interpreter and a listing
        assert done.returncode == 6
        [said] = [line for line in done.stderr.splitlines() if line.startswith("error:")]
        assert f"no Ray answered at RAY_ADDRESS='{address}'" in said
        assert "unset RAY_ADDRESS" in said
        assert "Traceback" not in done.stderr
        checked = labelmill("check", job, RAY_ADDRESS=address)
        assert checked.returncode != 0
        [found] = [line for line in checked.stdout.splitlines() if address in line]
        assert re.search("no Ray answered|no answer within", found)  # the latter where importing Ray takes long
