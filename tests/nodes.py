"""Ray nodes on this machine, each in a network namespace with an address of its own. Needs root, and iproute2."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

__all__ = ["WHY_NOT", "Nodes"]

WHY_NOT = "" if os.geteuid() == 0 and shutil.which("ip") else "needs root and `apt-get install iproute2`"

# On the head. With them a node whose packets vanish is given up after 15 to 20 s, where Ray takes 65.
HEALTH_CHECKS = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "5",
}
_SETTINGS = {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}


class Nodes:
    """Number 0 is the head. What they leave behind is removed at the end of the block.

    `prefix` is the environment that they run, `token` what they want of each other and of others; with a `dashboard`
    jobs can be submitted to them.
    """

    def __init__(self, *, prefix=sys.prefix, token=None, dashboard=False):
        self._prefix, self._dashboard = prefix, dashboard
        self._settings = _SETTINGS | ({"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {})
        self._name = f"lm{os.getpid() % 100_000}"
        self.network = f"10.78.{os.getpid() % 250}"
        self.started = set()

    def __enter__(self):
        self.folder = tempfile.mkdtemp(prefix="lm-")  # short, for Ray's sockets
        _ip("link", "add", f"{self._name}b", "type", "bridge")
        _ip("addr", "add", f"{self.gateway}/24", "dev", f"{self._name}b")
        _ip("link", "set", f"{self._name}b", "up")
        return self

    def __exit__(self, *_):
        for number in self.started:
            self.kill(number)
            _ip("netns", "del", self._space(number))
            subprocess.run(["ip", "link", "del", self._link(number)], check=False, capture_output=True)
        _ip("link", "del", f"{self._name}b")
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def gateway(self):
        """The address of this process in the nodes' network."""
        return f"{self.network}.1"

    @property
    def environ(self):
        """Of a process that connects to the cluster."""
        return self._settings | {"RAY_ADDRESS": f"{self.address(0)}:6379"}

    def address(self, number):
        return f"{self.network}.{number + 10}"

    def on(self, number):
        """Words before a command that runs on a node."""
        return ["ip", "netns", "exec", self._space(number)]

    def without(self, *folders):
        """Words before a command for which these folders are empty."""
        hidden = "".join(f"mount -t tmpfs none {folder} && " for folder in folders)
        return ["sh", "-c", f'{hidden}exec "$@"', "sh"] if folders else []

    def start(self, number, *, num_cpus=1, hide=(), **environ):
        """A node; its processes have `environ` beside this one's own, and empty folders in the place of `hide`."""
        self.connect(number)
        dashboard = ["--dashboard-host=0.0.0.0"] if self._dashboard else ["--include-dashboard=false"]
        place = (
            ["--head", "--port=6379", *dashboard, f"--temp-dir={self.folder}"]
            if number == 0
            else [f"--address={self.address(0)}:6379"]
        )
        common = [f"--node-ip-address={self.address(number)}", f"--num-cpus={num_cpus}", "--disable-usage-stats"]
        common += ["--object-store-memory=150000000"]
        mine = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        done = subprocess.run(
            [
                *self.on(number),
                *self.without(*hide),
                *self.python,
                "-m",
                "ray.scripts.scripts",
                "start",
                *place,
                *common,
            ],
            env=mine | self._settings | HEALTH_CHECKS | self.path | {n: str(value) for n, value in environ.items()},
            cwd="/",  # which nothing hides
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def set_link(self, number, state):
        """Its link `up` or `down`: packets vanish, and nobody is told."""
        _ip("link", "set", self._link(number), state)

    def kill(self, number):
        """All processes of a node, at once."""
        until = time.monotonic() + 30
        while (pids := self._pids(number)) and time.monotonic() < until:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)

    @property
    def python(self):
        """The words that start it."""
        return [str(Path(self._prefix, "bin", "python"))]

    @property
    def path(self):
        return {"PATH": f"{Path(self._prefix, 'bin')}{os.pathsep}{os.environ['PATH']}"}

    def connect(self, number):
        """Its place in the network, for another process than Ray's or for a node that comes again."""
        if number in self.started:
            return
        space, link = self._space(number), self._link(number)
        _ip("netns", "add", space)
        self.started.add(number)
        _ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("link", "set", link, "master", f"{self._name}b", "up")
        _ip("-n", space, "addr", "add", f"{self.address(number)}/24", "dev", "eth0")
        _ip("-n", space, "link", "set", "eth0", "up")
        _ip("-n", space, "link", "set", "lo", "up")
        _ip("-n", space, "route", "add", "default", "via", self.gateway)

    def _pids(self, number):
        return [int(pid) for pid in _ip("netns", "pids", self._space(number)).split()]

    def _space(self, number):
        return f"{self._name}n{number}"

    def _link(self, number):
        return f"{self._name}v{number}"


def _ip(*arguments):
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout
