"""What an approach makes: a network to be measured and published."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import Any

from labelmill.dataset import Findings, TrainingSet
from labelmill.images.transform import Preprocessing
from labelmill.train.job import Job
from labelmill.train.progress import Progress

__all__ = ["Candidate", "make_candidate"]

# Loaded when asked for: most of them import torch.
_APPROACHES = {
    "fine_tune": "labelmill.train.approaches.fit",
    "linear_probe": "labelmill.train.approaches.few_shot",
    "prototype": "labelmill.train.approaches.few_shot",
    "adapt": "labelmill.train.approaches.adapt",
    "quantize": "labelmill.train.approaches.quantize",
    "prune": "labelmill.train.approaches.prune",
    "ensemble": "labelmill.train.approaches.ensemble",
    "average": "labelmill.train.approaches.average",
}
_SEARCH = "labelmill.train.search.tune"


@dataclass(frozen=True)
class Candidate:
    """A network whose `weights.safetensors`, and what else shall travel with it, lie in the draft's folder.

    `progress` are the epochs it was trained for, where it was; `findings` are what its making found out, plain JSON
    values that go into the bundle's metrics and its report; `unreadable` are the pictures it had to leave out, uri ->
    reason.
    """

    architecture: str
    preprocessing: Preprocessing
    progress: Progress | None = None
    findings: Mapping[str, Any] = field(default_factory=dict)
    unreadable: Mapping[str, str] = field(default_factory=dict)

    def knowing(self, data: Findings) -> "Candidate":
        """The same, with what was found out about its training set."""
        findings = {**self.findings, "data": data.content}
        return replace(self, findings=findings, unreadable={**data.unreadable, **self.unreadable})


def make_candidate(job: Job, training_set: TrainingSet, draft: Path) -> Candidate:
    """Make the network by the approach that the spec names, or search for the best: the module's function `make`."""
    module = _APPROACHES[job.spec.approach] if job.spec.tune is None else _SEARCH
    make: Callable[[Job, TrainingSet, Path], Candidate] = import_module(module).make
    return make(job, training_set, draft)
