"""A Ray cluster of two nodes on this machine, a core each, as a process of its own: it lasts until its stdin ends.

With an argument the second node says that it has so many GPUs.

Prints one line of JSON: the `address` for RAY_ADDRESS, the process id of the second node's `raylet`, the address of
the first one's `metrics`, and the `folder` with their sockets.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager

# Set before Ray is imported, which reads them. A node that died is noticed after 3 s, not 15; all stays on loopback.
SETTINGS = {
    "RAY_health_check_initial_delay_ms": "1000",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "1000",
    "RAY_health_check_failure_threshold": "3",
    "RAY_metrics_report_interval_ms": "500",
    "RAY_AUTH_MODE": "disabled",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}


@contextmanager
def running(*arguments):
    """What a process of this program prints, while it lasts."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    command = [sys.executable, __file__, *arguments]
    cluster = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environ)
    try:
        yield json.loads(cluster.stdout.readline())
    finally:
        cluster.communicate(timeout=60)


def main() -> None:
    os.environ.update(SETTINGS)
    with tempfile.TemporaryDirectory(prefix="lm-", ignore_cleanup_errors=True) as folder:  # short, for Ray's sockets
        os.environ["RAY_TMPDIR"] = folder  # Ray notes the cluster's address there, too
        from ray.cluster_utils import Cluster

        node = {"num_cpus": 1, "object_store_memory": 100 * 2**20, "node_ip_address": "127.0.0.1"}
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        head = node | {"include_dashboard": False, "metrics_export_port": port}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        second = cluster.add_node(**node, num_gpus=int(sys.argv[1]) if sys.argv[1:] else 0)
        raylet = second.all_processes["raylet"][0].process.pid
        found = {"address": cluster.address, "raylet": raylet, "metrics": f"http://127.0.0.1:{port}/metrics"}
        found |= {"folder": folder}
        print(json.dumps(found), flush=True)
        sys.stdin.read()
        cluster.shutdown()


if __name__ == "__main__":
    main()
