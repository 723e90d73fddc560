"""What every scheduler has to know of a job."""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from labelmill.spec import LoadedSpec, Schedule, ServeSpec

__all__ = ["Night"]

# KubeRay puts up to 16 characters behind the name of a RayJob, `create` up to 15, and Kubernetes takes 63 in all.
_LONGEST = 32


@dataclass(frozen=True)
class Night:
    """`command` runs the spec on this machine, from `folder`; `image` is what the nodes of a cluster run."""

    loaded: LoadedSpec
    command: str
    folder: Path
    image: str

    @property
    def name(self) -> str:
        """Of whatever is made for it: labelmill-<name of the spec>, as Kubernetes takes it (RFC 1123)."""
        name = f"labelmill-{self.loaded.spec.name}"
        fine = re.sub("[^a-z0-9-]", "-", name).strip("-")
        if fine == name and len(name) <= _LONGEST:
            return name
        return f"{fine[: _LONGEST - 7].strip('-')}-{hashlib.sha256(name.encode()).hexdigest()[:6]}"

    @property
    def schedule(self) -> Schedule:
        spec = self.loaded.spec
        assert not isinstance(spec, ServeSpec) and spec.schedule is not None
        return spec.schedule
