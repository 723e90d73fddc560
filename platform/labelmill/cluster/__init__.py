"""Where a job runs: on a Ray of its own, started here and ended with it, or on the one that RAY_ADDRESS names."""

from labelmill.cluster.connection import Connection, connect, connect_ahead, resources_at_hand
from labelmill.cluster.loss import is_lost
from labelmill.cluster.reach import check_answers, cluster_address
from labelmill.cluster.resources import Resources, cores_in_use, nodes
from labelmill.cluster.words import named_node, said_by_worker

__all__ = [
    "Connection",
    "Resources",
    "check_answers",
    "cluster_address",
    "connect",
    "connect_ahead",
    "cores_in_use",
    "is_lost",
    "named_node",
    "nodes",
    "resources_at_hand",
    "said_by_worker",
]
