"""How far a run has come, kept beside the registry so that the same run goes on where it stopped.

`<registry>/<name>/runs/<digest>/` holds the weights and the optimizer's state after the last epoch, the weights of the
best one, and `progress.json`, which is written last and says which of them count. Workers, a killed driver that is
started again, and a run that resumes with other workers all read the same place: there is no second record.
"""

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from labelmill.errors import NotFoundError
from labelmill.images.transform import Preprocessing
from labelmill.storage import open_store

__all__ = ["METRIC_BY_TASK", "Epoch", "Progress", "RunFolder"]

# What chooses the best epoch, and whether a new version is better than the current one.
METRIC_BY_TASK: Mapping[str, str] = {"binary": "map", "multi_label": "map", "multi_class": "accuracy"}

_PROGRESS = "progress.json"
_FORMAT = 1
_CHECKPOINT = ".safetensors"
_NUM_UNREADABLE_KEPT = 1000


@dataclass(frozen=True)
class Epoch:
    """One pass over the training pictures. `curve` samples (step, loss, learning rate) within it; `ended_at_s` is a
    Unix time."""

    number: int
    loss: float
    metric: float
    learning_rate: float
    pictures_per_s: float
    num_workers: int
    curve: tuple[tuple[int, float, float], ...]
    ended_at_s: float = 0.0


@dataclass(frozen=True)
class Progress:
    """The epochs so far, and what could not be read: uri -> reason, the first thousand of `num_unreadable`."""

    preprocessing: Preprocessing
    epochs: tuple[Epoch, ...] = ()
    num_unreadable: int = 0
    unreadable: Mapping[str, str] | None = None

    @property
    def num_epochs(self) -> int:
        return len(self.epochs)

    @property
    def best(self) -> Epoch:
        return max(self.epochs, key=lambda epoch: epoch.metric)  # of equal ones the first

    def after(self, epoch: Epoch, unreadable: Mapping[str, str]) -> "Progress":
        kept = dict(sorted(unreadable.items())[:_NUM_UNREADABLE_KEPT])
        return replace(self, epochs=(*self.epochs, epoch), num_unreadable=len(unreadable), unreadable=kept)

    def to_json(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "preprocessing": self.preprocessing.to_json(),
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "num_unreadable": self.num_unreadable,
            "unreadable": dict(self.unreadable or {}),
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> "Progress":
        epochs = [
            Epoch(**{**epoch, "curve": tuple((int(s), loss, rate) for s, loss, rate in epoch["curve"])})
            for epoch in values["epochs"]
        ]
        preprocessing = Preprocessing.from_json(values["preprocessing"])
        return cls(preprocessing, tuple(epochs), values["num_unreadable"], values["unreadable"])


class RunFolder:
    """Where one run keeps its progress and its checkpoints."""

    def __init__(self, uri: str) -> None:
        self._store = open_store(uri)
        self.uri = self._store.uri

    def progress(self) -> Progress | None:
        """What is complete, or None before the first epoch is. A record of another format counts as none."""
        try:
            values = json.loads(self._store.read(_PROGRESS))
        except NotFoundError:
            return None
        return Progress.from_json(values) if values["format"] == _FORMAT else None

    def save(
        self, progress: Progress, write_weights: Callable[[Path], None], write_optimizer: Callable[[Path], None]
    ) -> None:
        """Keep the state after the last epoch of `progress`; what is neither last nor best is removed."""
        last, best = progress.num_epochs, progress.best.number
        self._upload(_weights_key(last), write_weights)
        self._upload(_optimizer_key(last), write_optimizer)
        self._store.write(_PROGRESS, json.dumps(progress.to_json()).encode())
        kept = {_PROGRESS, _weights_key(last), _optimizer_key(last), _weights_key(best)}
        for key in list(self._store.keys()):
            if key.endswith(_CHECKPOINT) and key not in kept:
                self._store.delete(key)

    def download_weights(self, epoch: int, path: Path) -> None:
        path.write_bytes(self._store.read(_weights_key(epoch)))

    def download_optimizer(self, epoch: int, path: Path) -> None:
        path.write_bytes(self._store.read(_optimizer_key(epoch)))

    def exists(self) -> bool:
        return next(iter(self._store.keys()), None) is not None

    def remove(self) -> None:
        """Remove the checkpoints: `progress.json` last, so that a removal cut short is begun again."""
        for key in sorted(self._store.keys(), key=lambda key: key == _PROGRESS):
            self._store.delete(key)

    def _upload(self, key: str, write: Callable[[Path], None]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / key
            write(path)
            self._store.write(key, path.read_bytes())


def _weights_key(epoch: int) -> str:
    return f"weights-{epoch:04d}{_CHECKPOINT}"


def _optimizer_key(epoch: int) -> str:
    return f"optimizer-{epoch:04d}{_CHECKPOINT}"
