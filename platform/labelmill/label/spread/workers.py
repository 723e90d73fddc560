"""How many processes label, and what each takes: fixed when a job starts, from what the cluster has."""

from dataclasses import dataclass

from labelmill.cluster import Resources

__all__ = ["Workers", "plan_workers", "wants_gpus"]


@dataclass(frozen=True)
class Workers:
    """How many workers run, a core each, and how many GPUs they share: fixed when the job starts, from what the cluster
    has. A GPU has a process of its own, which takes a core where there are enough."""

    count: int
    gpus: int = 0
    cores_a_gpu: int = 0

    @property
    def cores(self) -> int:
        return self.count + self.gpus * self.cores_a_gpu

    def __str__(self) -> str:
        cores = f"{self.count} worker{'s' if self.count > 1 else ''} of 1 core"
        return f"{cores} and {self.gpus} GPU{'s' if self.gpus > 1 else ''}" if self.gpus else cores


def plan_workers(resources: Resources, engine: str, num_chunks: int) -> Workers:
    """One worker a core, no more than there is work; and the GPUs, where the engine can use them."""
    if wants_gpus(resources, engine):
        cores_a_gpu = 1 if resources.cpus > resources.gpus else 0
        count = max(1, resources.cpus - resources.gpus * cores_a_gpu)
        return Workers(min(count, num_chunks), min(resources.gpus, num_chunks), cores_a_gpu)
    return Workers(min(resources.cpus, num_chunks))


def wants_gpus(resources: Resources, engine: str) -> bool:
    """Whether a job takes the GPUs that there are: OpenVINO computes on the cores."""
    return resources.gpus > 0 and engine != "openvino"
