"""The pods of a Ray cluster, as KubeRay makes them of a spec: of one user, on a disk that is read only."""

import math
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from labelmill.cluster.deploy.night import Night
from labelmill.spec import Range, ServeSpec, Spec, TrainSpec

__all__ = ["LOCKED", "Workers", "cluster_of", "user", "workers_of"]

_STOPS_WITHIN_S = 90  # a run that is asked to stop commits what it has
# A node whose packets vanish is given up after 15 to 20 s, where Ray takes 65.
_HEALTH_CHECKS = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "5",
}
LOCKED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
# Folders that a container may write to. Ray's object store lies in /dev/shm.
_ROOM = {"tmp": "/tmp", "home": "/home/labelmill", "shm": "/dev/shm"}  # noqa: S108 - of a container


@dataclass(frozen=True)
class Workers:
    """Pods of one size, between so few and so many."""

    fewest: int
    most: int
    cpus: int = 4
    gpus: int = 0

    @property
    def size(self) -> dict[str, str]:
        gpus = {"nvidia.com/gpu": str(self.gpus)} if self.gpus else {}
        return {"cpu": str(self.cpus), "memory": "32Gi" if self.gpus else "8Gi", **gpus}


def workers_of(spec: Spec) -> Workers:
    """As many as the spec asks for, and where it leaves that to the cluster as many as there is work for."""
    if isinstance(spec, ServeSpec):
        return Workers(spec.replicas, spec.replicas)
    if isinstance(spec, TrainSpec):
        count, asked = spec.workers.count, spec.workers
        fewest, most = (count.min, count.max) if isinstance(count, Range) else (count, count)
        return Workers(fewest, most, max(4, math.ceil(asked.cpus)), math.ceil(asked.gpus))
    return Workers(1, 8)


def cluster_of(night: Night, workers: Workers, environ: dict[str, str] | None = None) -> dict[str, Any]:
    environ = environ or {}
    pod = _pod(night, "ray-worker", workers.size, environ)
    if workers.gpus:
        pod["spec"]["tolerations"] = [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}]
    return {
        "rayVersion": version("ray"),
        "authOptions": {"mode": "token"},
        "enableInTreeAutoscaling": workers.most > workers.fewest,
        "headGroupSpec": {
            "rayStartParams": {"num-cpus": "0"},
            "template": _pod(night, "ray-head", {"cpu": "2", "memory": "8Gi"}, _HEALTH_CHECKS | environ),
        },
        "workerGroupSpecs": [
            {
                "groupName": "gpu" if workers.gpus else "cpu",
                "replicas": workers.fewest,
                "minReplicas": workers.fewest,
                "maxReplicas": workers.most,
                "rayStartParams": {},
                "template": pod,
            }
        ],
    }


def _pod(night: Night, name: str, size: dict[str, str], environ: dict[str, str]) -> dict[str, Any]:
    container = {
        "name": name,
        "image": night.image,
        "env": [{"name": key, "value": value} for key, value in environ.items()],
        # Secrets of the spec, and the store's keys where the service account is not enough.
        "envFrom": [{"secretRef": {"name": night.name, "optional": True}}],
        "resources": {"requests": size, "limits": {name: value for name, value in size.items() if name != "cpu"}},
        "securityContext": LOCKED,
        "volumeMounts": [{"name": key, "mountPath": place} for key, place in _ROOM.items()],
    }
    volumes = [{"name": key, "emptyDir": {"medium": "Memory"} if key == "shm" else {}} for key in _ROOM]
    spec = {
        "serviceAccountName": "labelmill",
        "terminationGracePeriodSeconds": _STOPS_WITHIN_S,
        "securityContext": user(),
        "containers": [container],
        "volumes": volumes,
    }
    return {"spec": spec}


def user() -> dict[str, Any]:
    return {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000, "seccompProfile": {"type": "RuntimeDefault"}}
