"""Which training a run is: a digest of all that decides its result.

The version before digested variables as they were written, and nothing of what a run starts from. What it began or
finished is found again under the name that it gave, unless what is known of it speaks against that.
"""

import hashlib
import json
import logging
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from labelmill.errors import BundleError
from labelmill.model.bundle import Bundle
from labelmill.model.registry import Registry
from labelmill.spec import LoadedSpec, TrainSpec
from labelmill.train.origins import Origin, origins_of
from labelmill.train.progress import Progress

__all__ = ["Identity", "decisive", "differing", "identity_of", "run_digest"]

logger = logging.getLogger(__name__)

# What decides where and how fast a run goes, or what happens after it, but not what comes out.
# How the pictures were split shows in the fingerprint of the data.
_NOT_IN_DIGEST = ("workers", "promote", "tracking", "max_accuracy_loss", "way", "max_requests_per_s")
# Nor do these blocks. `optimize.schedule`, which is a word, decides much.
_BLOCKS_NOT_IN_DIGEST = ("schedule", "notify")
# Fields of which a bundle says, in its own way, what they were.
_NOTED = ("name", "registry", "data.images", "data.labels", "model.architecture", "model.image_size_px")


@dataclass(frozen=True)
class Identity:
    """What decides a run: the spec with its variables filled in, the labelled pictures, and what it starts from.

    `written` is the spec with its variables as they were written.
    """

    spec: TrainSpec
    source: Mapping[str, Any]
    fingerprint: str
    origins: tuple[Origin, ...] = ()
    written: Mapping[str, Any] = field(default_factory=dict)

    @property
    def start(self) -> dict[str, str]:
        """The digest of everything the run starts from and that is there."""
        return {origin.name: origin.digest for origin in self.origins if origin.digest}

    @property
    def digest(self) -> str:
        return self._digest(self.start)

    @property
    def earlier(self) -> str:
        """The digest by which the version before knew the same run. It may stand for others as well, in which
        `variables` had other values."""
        return run_digest(self.written, self.fingerprint)

    @property
    def variables(self) -> list[str]:
        """The fields that hold one."""
        return list(differing(self.written, self.source))

    def noted(self) -> dict[str, Any]:
        """What a bundle notes, to be known by."""
        return {"run": self.digest, **({"start": self.start} if self.start else {})}

    def check_origins(self) -> None:
        """Raise what is the matter with that from which the run starts."""
        for origin in self.origins:
            if origin.why is not None:
                raise origin.why

    def published(self, registry: Registry, beside: Collection[int] = ()) -> Bundle | None:
        """The version that this very run gave, if it got so far, looked for `beside` those that are known."""
        for number in sorted(set(registry.versions(self.spec.name)) - set(beside), reverse=True):
            try:
                bundle = registry.resolve(f"{self.spec.name}@{number}")
            except BundleError as exc:
                logger.warning("passed over: %s", exc)
                continue
            if self._made(bundle) or self._made_by_the_version_before(registry, bundle):
                return bundle
        return None

    def may_go_on(self, progress: Progress | None, begun_at: datetime) -> bool:
        """Whether a run that the version before began under `earlier` may be this one, as far as its progress tells."""
        if self._changed_since(begun_at):
            return False
        if progress is None or not progress.epochs:
            return True
        optimize, epochs = self.spec.optimize, progress.epochs
        reached = max(rate for epoch in epochs for _, _, rate in epoch.curve)
        is_warm = len(epochs) > optimize.warmup_epochs
        return (
            self._has_size(progress.preprocessing.image_size_px)
            and len(epochs) <= optimize.epochs
            and reached <= 1.01 * optimize.learning_rate
            and (reached >= 0.5 * optimize.learning_rate or not is_warm)
        )

    def tell_unknown(self, what: str) -> None:
        """Say of what the version before made that it did not note some values."""
        if unknown := [name for name in self.variables if name not in _NOTED]:
            _say(
                f"{what} is of an earlier labelmill, which did not note what the variables in {', '.join(unknown)} "
                "were: they count as what they are now. To train anew, write a value there instead of a variable."
            )

    def _digest(self, start: Mapping[str, str]) -> str:
        # Where the registry lies decides nothing: it is digested as it was written, as it always was.
        values = self.spec.model_dump(mode="json", exclude_unset=True, exclude={"registry"})
        return run_digest(_filled(self.source, values), self.fingerprint, start)

    def _made(self, bundle: Bundle) -> bool:
        """What is no longer there was what the bundle says it was."""
        noted = bundle.metrics.get("start", {})
        gone = [origin.name for origin in self.origins if origin.digest is None]
        start = self.start | {name: noted[name] for name in gone if name in noted}
        return bool(bundle.metrics.get("run") == self._digest(start))

    def _made_by_the_version_before(self, registry: Registry, bundle: Bundle) -> bool:
        if bundle.metrics.get("run") != self.earlier:
            return False
        if self._contradicts(bundle) or self._changed_since(registry.published_at(bundle)):
            return False
        self.tell_unknown(bundle.reference)
        return True

    def _contradicts(self, bundle: Bundle) -> bool:
        """Whether what a bundle says of itself is not what this spec asks for."""
        spec, epochs = self.spec, bundle.metrics.get("epochs", 0)
        if spec.model is not None and spec.tune is None and bundle.architecture != spec.model.architecture:
            return True
        may_end_early = spec.optimize.patience is not None or spec.tune is not None
        ended = epochs == spec.optimize.epochs or (may_end_early and epochs <= spec.optimize.epochs)
        return not self._has_size(bundle.preprocessing.image_size_px) or bool(epochs and not ended)

    def _has_size(self, image_size_px: int) -> bool:
        model = self.spec.model
        return model is None or self.spec.tune is not None or model.image_size_px in (None, image_size_px)

    def _changed_since(self, moment: datetime) -> bool:
        """As far as can be told; the moment is on record in whole seconds."""
        return any(origin.changed_at and origin.changed_at >= moment + timedelta(seconds=1) for origin in self.origins)


def identity_of(loaded: LoadedSpec, fingerprint: str) -> Identity:
    """The identity of a run on labelled pictures with this fingerprint."""
    spec = loaded.spec
    assert isinstance(spec, TrainSpec)
    where = {"registry": loaded.written["registry"]} if "registry" in loaded.written else {}
    return Identity(
        spec,
        decisive({**loaded.source, **where}),
        fingerprint,
        origins_of(spec, Registry(spec.registry)),
        decisive(loaded.written),
    )


def run_digest(source: Mapping[str, Any], fingerprint: str, start: Mapping[str, str] | None = None) -> str:
    """The identity of a run: sha256 of the spec with its variables filled in, of the data, and of the digest of
    everything it starts from."""
    parts = [decisive(source), fingerprint, *([dict(start)] if start else [])]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def decisive(source: Mapping[str, Any]) -> dict[str, Any]:
    """What of a spec decides a run."""
    return {
        key: decisive(value) if isinstance(value, dict) else value
        for key, value in source.items()
        if key not in _NOT_IN_DIGEST and (key not in _BLOCKS_NOT_IN_DIGEST or isinstance(value, str))
    }


@cache
def _say(line: str) -> None:
    logger.warning("%s", line)  # once a process, however often the run is looked for


def _filled(source: Any, values: Any) -> Any:
    """`source` with its values where it keeps a variable whose name sounds like a secret: a digest shows none."""
    if isinstance(source, dict):
        inside = values if isinstance(values, dict) else {}
        return {key: _filled(inner, inside.get(key)) for key, inner in source.items()}
    if isinstance(source, list) and isinstance(values, list) and len(source) == len(values):
        return [_filled(inner, value) for inner, value in zip(source, values, strict=True)]
    return values if isinstance(source, str) and "${" in source and isinstance(values, str) else source


def differing(one: Any, other: Any, prefix: str = "") -> Iterator[str]:
    """The fields in which two specs differ."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in sorted(one.keys() | other.keys()):
            yield from differing(one.get(key), other.get(key), f"{prefix}.{key}" if prefix else key)
    elif one != other:
        yield prefix
