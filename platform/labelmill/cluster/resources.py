"""What there is to run on: of the Ray that this process is connected to, or of the one that it would connect to."""

import os
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from labelmill.allowance import cores_here
from labelmill.cluster.imports import import_ray

__all__ = ["Resources", "cores_in_use", "nodes", "resources_here", "resources_of"]


@dataclass(frozen=True)
class Resources:
    """What the connected Ray has in all, and whether this process started it."""

    cpus: int
    gpus: int
    local: bool


def resources_of(ray: ModuleType, *, local: bool) -> Resources:
    found = ray.cluster_resources()
    return Resources(cpus=max(1, int(found.get("CPU", 0))), gpus=int(found.get("GPU", 0)), local=local)


def resources_here() -> Resources:
    """Of a Ray of its own, without starting one."""
    return Resources(cpus=cores_here(), gpus=_gpus_here(), local=True)


def _gpus_here() -> int:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return len([one for one in visible.split(",") if one not in ("", "-1", "NoDevFiles")])
    return sum(1 for device in Path("/dev").glob("nvidia*") if device.name.removeprefix("nvidia").isdecimal())


def nodes(resource: str = "CPU") -> dict[str, str]:
    """The address of each node that has some of this, by its id, of the Ray that this process is connected to."""
    ray = import_ray()
    found = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get(resource)]
    return {node["NodeID"]: node["NodeManagerAddress"] for node in found}


def cores_in_use() -> tuple[int, int]:
    """How many cores that Ray has, and how many of them somebody holds."""
    ray = import_ray()
    total, free = (found.get("CPU", 0.0) for found in (ray.cluster_resources(), ray.available_resources()))
    return int(total), round(total - free)
