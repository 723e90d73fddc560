"""The model that answers, and how a promoted one takes its place while requests come in."""

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Generic, TypeVar

import numpy as np

from labelmill.errors import BundleError
from labelmill.model.labeler import Labeler
from labelmill.model.registry import Registry
from labelmill.serve.settings import Settings

__all__ = ["POLL_INTERVAL_S", "Asked", "Follower", "Wanted", "follow"]

logger = logging.getLogger(__name__)

POLL_INTERVAL_S = 2.0
_FIRST_RETRY_S, _LONGEST_RETRY_S = 30.0, 600.0

Model = TypeVar("Model")


@dataclass(frozen=True, slots=True)
class Wanted:
    """The bundle that should answer, and by which reference it was asked for: what the newest row of an alias names, or
    a version."""

    reference: str
    version: int
    digest: str


class Asked:
    """Which model the endpoint serves: what its operators may change while it runs."""

    def __init__(self, reference: str) -> None:
        self.reference = reference


def follow(settings: Settings, asked: Asked, report: Callable[[str], None]) -> "Follower[Labeler]":
    """Load the model that is asked for, and follow: an alias to what it names, and `asked` to another reference.

    `report` is told of every change and every failure to make one, in a word (see `Metrics.followed`).
    RegistryError, BundleError, StorageError: the first model cannot be loaded.
    """
    registry = Registry(settings.registry)

    @cache
    def version(reference: str) -> Wanted:
        bundle = registry.resolve(reference)
        return Wanted(reference, bundle.version, bundle.digest)

    def find() -> Wanted:
        reference = asked.reference
        name, _, alias = reference.partition("@")
        if alias.isdecimal():  # the same for ever
            return version(reference)
        row = registry.resolve_alias_row(name, alias)
        return Wanted(reference, row.version, row.digest)

    def load(wanted: Wanted) -> Labeler:
        bundle = registry.resolve(f"{wanted.reference.partition('@')[0]}@{wanted.version}")
        if bundle.digest != wanted.digest:
            raise BundleError(
                f"{wanted.reference} asks for {bundle.reference} with digest {wanted.digest}, but what the registry "
                f"holds has {bundle.digest}; promote a version that is whole"
            )
        labeler = Labeler(
            bundle,
            settings.engine,
            precision=settings.precision,
            max_pixels=settings.max_pixels,
            batch_size=settings.max_batch_size,
        )
        side_px = bundle.preprocessing.image_size_px
        for batch_size in {1, settings.max_batch_size}:
            labeler.confidences(np.zeros((batch_size, side_px, side_px, 3), np.uint8))
        return labeler

    follower = Follower(find, load, report=report)
    follower.start()
    return follower


class Follower(Generic[Model]):
    """Holds the model that answers, and exchanges it when the registry names another.

    `find` asks the registry what is wanted; `load` makes a warm model of it. Both may block: after the first load,
    which the constructor does and whose errors it raises, they run in a thread of the follower's own. A model that does
    not load changes nothing: the old one goes on answering, the error is in `error`, in the log and counted through
    `report`, and the same bundle is tried again only after 30 s, then after twice as long each time, up to 10 minutes.

    `model` changes in one assignment: who needs one model for a whole batch reads it once.
    """

    def __init__(
        self,
        find: Callable[[], Wanted],
        load: Callable[[Wanted], Model],
        *,
        report: Callable[[str], None] = lambda outcome: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find, self._load, self._report, self._clock = find, load, report, clock
        self.wanted = find()
        self.model = load(self.wanted)
        self._loaded = self.wanted
        self._poll_error: str | None = None
        self._load_error: str | None = None
        self._retry_at_s, self._retry_after_s = 0.0, _FIRST_RETRY_S
        self._stop = threading.Event()

    @property
    def error(self) -> str | None:
        """Why the wanted model does not answer, or why nobody knows which one that is; None when all is well."""
        return self._poll_error or self._load_error

    def start(self, poll_interval_s: float = POLL_INTERVAL_S) -> None:
        """Ask the registry every `poll_interval_s`, in the background, until `stop`."""
        threading.Thread(target=self._run, args=(poll_interval_s,), name="follow-alias", daemon=True).start()

    def stop(self) -> None:
        self._stop.set()

    def _run(self, poll_interval_s: float) -> None:
        while not self._stop.wait(poll_interval_s):
            self.step()

    def step(self) -> None:
        """Ask once, and exchange the model if another one is wanted. Never raises."""
        try:
            wanted = self._find()
        except Exception as exc:  # noqa: BLE001 - whatever the registry's trouble is, the model in memory still answers
            self._poll_failed(f"the registry could not be asked: {_one_line(exc)}")
            return
        self._poll_error = None
        if wanted != self.wanted:
            self.wanted, self._load_error = wanted, None
            self._retry_at_s, self._retry_after_s = 0.0, _FIRST_RETRY_S
        if wanted != self._loaded and self._clock() >= self._retry_at_s:
            self._exchange(wanted)

    def _exchange(self, wanted: Wanted) -> None:
        started_s = time.monotonic()
        try:
            model = self._load(wanted)
        except Exception as exc:  # noqa: BLE001 - nothing that a new bundle does may stop the old one from answering
            self._retry_at_s = self._clock() + self._retry_after_s
            self._load_error = f"version {wanted.version} was not loaded: {_one_line(exc)}"
            self._report("load_failed")
            logger.error("model not loaded retry_s=%.0f error=%r", self._retry_after_s, self._load_error)
            self._retry_after_s = min(2 * self._retry_after_s, _LONGEST_RETRY_S)
            return
        self.model, self._loaded, self._load_error = model, wanted, None
        self._report("swapped")
        took_s = time.monotonic() - started_s
        logger.info("model swapped version=%d digest=%s load_s=%.1f", wanted.version, wanted.digest, took_s)

    def _poll_failed(self, error: str) -> None:
        self._report("poll_failed")
        if error != self._poll_error:  # a registry that stays away is one line in the log, not one every two seconds
            logger.error("registry not asked error=%r", error)
        self._poll_error = error


def _one_line(exc: BaseException) -> str:
    return " ".join(str(exc).split()) or type(exc).__name__
