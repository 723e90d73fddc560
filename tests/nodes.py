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
_RAY = str(Path(sys.executable).with_name("ray"))


class Nodes:
    """Number 0 is the head. What they leave behind is removed at the end of the block."""

    def __init__(self):
        self._name = f"lm{os.getpid() % 100_000}"
        self._net = f"10.78.{os.getpid() % 250}"
        self._started = []

    def __enter__(self):
        self._folder = tempfile.mkdtemp(prefix="lm-")  # short, for Ray's sockets
        _ip("link", "add", f"{self._name}b", "type", "bridge")
        _ip("addr", "add", f"{self.gateway}/24", "dev", f"{self._name}b")
        _ip("link", "set", f"{self._name}b", "up")
        return self

    def __exit__(self, *_):
        for number in self._started:
            self.kill(number)
            _ip("netns", "del", self._space(number))
            subprocess.run(["ip", "link", "del", self._link(number)], check=False, capture_output=True)
        _ip("link", "del", f"{self._name}b")
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def gateway(self):
        """The address of this process in the nodes' network."""
        return f"{self._net}.1"

    @property
    def environ(self):
        """Of a process that connects to the cluster."""
        return _SETTINGS | {"RAY_ADDRESS": f"{self.address(0)}:6379"}

    def address(self, number):
        return f"{self._net}.{number + 10}"

    def on(self, number):
        """Words before a command that runs on a node."""
        return ["ip", "netns", "exec", self._space(number)]

    def start(self, number, *, num_cpus=1, hide=None, **environ):
        """A node; its processes have `environ` beside this one's own, and an empty folder in the place of `hide`."""
        self._connect(number)
        hidden = ["sh", "-c", f'mount -t tmpfs none {hide} && exec "$@"', "sh"] if hide else []
        place = (
            ["--head", "--port=6379", "--include-dashboard=false", f"--temp-dir={self._folder}"]
            if number == 0
            else [f"--address={self.address(0)}:6379"]
        )
        common = [f"--node-ip-address={self.address(number)}", f"--num-cpus={num_cpus}", "--disable-usage-stats"]
        common += ["--object-store-memory=150000000"]
        mine = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        done = subprocess.run(
            [*self.on(number), *hidden, _RAY, "start", *place, *common],
            env=mine | _SETTINGS | HEALTH_CHECKS | {name: str(value) for name, value in environ.items()},
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

    def _connect(self, number):
        space, link = self._space(number), self._link(number)
        _ip("netns", "add", space)
        self._started.append(number)
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
