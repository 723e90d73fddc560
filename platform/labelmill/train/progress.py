"""How far a run has come, kept beside the registry so that the same run goes on where it stopped.

`<registry>/<name>/runs/<digest>/` holds the weights at the last checkpoint, what else training needs to go on from it
(the optimizer's state, mostly), the weights of the best epoch, and `progress.json`, which is written last and says
which of them count. Workers, a killed driver that is
started again, and a run that resumes with other workers all read the same place: there is no second record.
"""

import json
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from labelmill.errors import NotFoundError, StorageError
from labelmill.images.transform import Preprocessing
from labelmill.spec import Optimize
from labelmill.storage import open_store
from labelmill.storage.lease import LEASE_FOLDER

__all__ = ["METRIC_BY_TASK", "Epoch", "Progress", "RunFolder"]

# What chooses the best epoch, and whether a new version is better than the current one.
METRIC_BY_TASK: Mapping[str, str] = {"binary": "map", "multi_label": "map", "multi_class": "accuracy"}

_PROGRESS = "progress.json"
_NOTE = "run.json"
# What a run goes on from. Anything else may lie there, too: a note, a file of the operating system.
_STATE = re.compile(r"(progress|search)\.json|(trials|tensorboard)/.*|[a-z].*\.safetensors")
_FORMAT = 2
_CHECKPOINT = ".safetensors"
_NUM_UNREADABLE_KEPT = 1000


@dataclass(frozen=True)
class Epoch:
    """One pass over the training pictures. `curve` samples (step, loss, learning rate) within it; it ended at the Unix
    time `ended_at_s`.

    `metric` and `validation_loss` are those of the validation pictures, the latter by the same objective as `loss`;
    `training_metric` is that of the last few thousand pictures of the pass, augmented and as they were answered then;
    of a mixed picture the labels of its larger part count.
    """

    number: int
    loss: float
    metric: float
    learning_rate: float
    pictures_per_s: float
    num_workers: int
    curve: tuple[tuple[int, float, float], ...]
    validation_loss: float
    training_metric: float
    ended_at_s: float = 0.0


@dataclass(frozen=True)
class Progress:
    """The epochs so far, and what could not be read: uri -> reason, the first thousand of `num_unreadable`.

    `step` counts the steps that are done of the epoch after them.
    """

    preprocessing: Preprocessing
    epochs: tuple[Epoch, ...] = ()
    step: int = 0
    num_unreadable: int = 0
    unreadable: Mapping[str, str] | None = None

    @property
    def num_epochs(self) -> int:
        return len(self.epochs)

    @property
    def best(self) -> Epoch:
        return max(self.epochs, key=lambda epoch: epoch.metric)  # of equal ones the first

    @property
    def departure(self) -> int | None:
        """The epoch from which on the network learnt its own pictures only: none later had a lower validation loss,
        though the training loss went on falling. None where that did not happen.
        """
        if not self.epochs:
            return None
        lowest = min(self.epochs, key=lambda epoch: epoch.validation_loss)
        fell = any(epoch.loss < lowest.loss for epoch in self.epochs[lowest.number :])
        return lowest.number if fell else None

    def is_finished(self, optimize: Optimize) -> bool:
        """Whether all epochs are done, or the last `patience` of them brought nothing better."""
        if self.num_epochs >= optimize.epochs:
            return True
        waited = self.num_epochs - self.best.number if self.epochs else 0
        return optimize.patience is not None and waited >= optimize.patience

    def after(self, epoch: Epoch, unreadable: Mapping[str, str]) -> "Progress":
        kept = dict(sorted(unreadable.items())[:_NUM_UNREADABLE_KEPT])
        return replace(self, epochs=(*self.epochs, epoch), step=0, num_unreadable=len(unreadable), unreadable=kept)

    def to_json(self) -> dict[str, Any]:
        return {
            "format": _FORMAT,
            "preprocessing": self.preprocessing.to_json(),
            "epochs": [asdict(epoch) for epoch in self.epochs],
            "step": self.step,
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
        return cls(preprocessing, tuple(epochs), values["step"], values["num_unreadable"], values["unreadable"])


class RunFolder:
    """Where one run keeps its progress and its checkpoints."""

    def __init__(self, uri: str) -> None:
        self._store = open_store(uri)
        self.uri = self._store.uri

    def progress(self) -> Progress | None:
        """What is complete, or None before the first epoch is. A record of another format counts as none."""
        values = self._read(_PROGRESS)
        return None if values is None or values["format"] != _FORMAT else Progress.from_json(values)

    def save(
        self, progress: Progress, write_weights: Callable[[Path], None], write_rest: Callable[[Path], None]
    ) -> None:
        """Keep the state that `progress` describes; what is neither the last nor of the best epoch is removed."""
        weights, rest = _key("weights", progress), _key("rest", progress)
        self._upload(weights, write_weights)
        self._upload(rest, write_rest)
        self._store.write(_PROGRESS, json.dumps(progress.to_json()).encode())
        kept = {_PROGRESS, weights, rest} | ({_weights_key(progress.best.number)} if progress.epochs else set())
        for key in list(self._store.keys()):
            if key.endswith(_CHECKPOINT) and key not in kept:
                self._store.delete(key)

    def download_weights(self, epoch: int, path: Path) -> None:
        """The weights after an epoch: the last or the best one's."""
        path.write_bytes(self._store.read(_weights_key(epoch)))

    def download_state(self, progress: Progress, weights: Path, rest: Path) -> None:
        """Both files of the state that `progress` describes."""
        weights.write_bytes(self._store.read(_key("weights", progress)))
        rest.write_bytes(self._store.read(_key("rest", progress)))

    def note(self, record: Mapping[str, Any]) -> None:
        """Keep what the run is, for those that come after it."""
        self._store.write(_NOTE, json.dumps(record).encode())

    def noted(self) -> dict[str, Any] | None:
        """What the run is; None where an older labelmill began it."""
        return self._read(_NOTE)

    def exists(self) -> bool:
        """Whether the run has anything to go on from."""
        return any(_STATE.fullmatch(key) for key in self._keys())

    def begun_at(self) -> datetime:
        """When the oldest of what is there was written."""
        return min(self._store.info(key).modified_at for key in self._keys())

    def remove(self) -> None:
        """Remove all but the lease: `progress.json` last, so that a removal cut short is begun again."""
        for key in sorted(self._keys(), key=lambda key: key == _PROGRESS):
            self._store.delete(key)

    def _keys(self) -> list[str]:
        return [key for key in list(self._store.keys()) if not key.startswith(f"{LEASE_FOLDER}/")]

    def _read(self, key: str) -> dict[str, Any] | None:
        try:
            values: dict[str, Any] = json.loads(self._store.read(key))
        except NotFoundError:
            return None
        except ValueError as exc:
            raise StorageError(
                f"{self._store.address(key)} is damaged ({exc}), so the unfinished run cannot go on: remove "
                f"{self.uri} to begin it anew."
            ) from exc
        return values

    def _upload(self, key: str, write: Callable[[Path], None]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / key
            write(path)
            self._store.write(key, path.read_bytes())


def _key(kind: str, progress: Progress) -> str:
    within = f"-{progress.step:07d}" if progress.step else ""
    return f"{kind}-{progress.num_epochs:04d}{within}{_CHECKPOINT}"


def _weights_key(epoch: int) -> str:
    return f"weights-{epoch:04d}{_CHECKPOINT}"
