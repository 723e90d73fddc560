"""Runs that were begun and not finished: which one goes on, for whom alone, and what becomes of the others.

A run's folder says in `run.json` what the run is, so that one that starts anew can say what has changed.
"""

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from labelmill.errors import FencedError, StorageError
from labelmill.model.registry import Registry
from labelmill.storage import open_store
from labelmill.storage.lease import Lease
from labelmill.train.identity import Identity, differing
from labelmill.train.progress import RunFolder
from labelmill.unattended import note, turn_of

__all__ = ["find_folder", "held"]

logger = logging.getLogger(__name__)


def find_folder(registry: Registry, identity: Identity) -> RunFolder:
    """Where this run was begun, be it by the version before, or where it is to begin."""
    runs = f"{registry.uri}/{identity.spec.name}/runs"
    own, before = (RunFolder(f"{runs}/{digest[:16]}") for digest in (identity.digest, identity.earlier))
    if own.exists() or not before.exists() or not _is_taken_over(before, identity):
        return own
    identity.tell_unknown(f"the unfinished run in {before.uri}")
    return before


@contextmanager
def held(folder: RunFolder, registry: Registry, identity: Identity) -> Iterator[Lease]:
    """The folder for this run alone. BusyError: the same run is under way elsewhere.

    What is left of a run that ended before it had anything to keep, or that has nothing to keep any more, is removed.
    """
    note(run=folder.uri)
    with turn_of(identity.spec, open_store(folder.uri), of="training run") as lease:
        if not folder.exists():
            _tell_of_others(folder, registry, identity)
        folder.note(_record(identity))
        try:
            yield lease
        finally:
            try:
                if not folder.exists():
                    lease.check()
                    folder.remove()
                    lease.dissolve()
            except (StorageError, FencedError) as exc:
                logger.warning("what is left of the run in %s was not removed: %s", folder.uri, exc)


def _record(identity: Identity) -> dict[str, Any]:
    return {
        "run": identity.digest,
        "spec": identity.source,
        "data": identity.fingerprint,
        "start": identity.start,
    }


def _is_taken_over(folder: RunFolder, identity: Identity) -> bool:
    """Whether a run of the version before is this one: it is that of the first who asks, if nothing speaks against."""
    noted = folder.noted()
    if noted is not None:
        return bool(noted.get("run") == identity.digest)
    return identity.may_go_on(folder.progress(), folder.begun_at())


def _tell_of_others(folder: RunFolder, registry: Registry, identity: Identity) -> None:
    """Say which unfinished runs this one does not go on with, as far as somebody may have expected it to."""
    runs = f"{identity.spec.name}/runs"
    for name in open_store(registry.uri).folders(runs):
        other = RunFolder(f"{registry.uri}/{runs}/{name}")
        try:
            if other.uri != folder.uri and other.exists():
                _tell_of(other, identity)
        except StorageError as exc:
            logger.warning("passed over: %s", exc)


def _tell_of(other: RunFolder, identity: Identity) -> None:
    changed, progress = _what_changed(other.noted(), identity), other.progress()
    if changed:
        logger.warning(
            "this run starts anew, for another one of this model was left unfinished %sin %s, and %s. That one stays "
            "as it is, and goes on when it is asked for again; remove its folder if it will not be.",
            f"after epoch {progress.num_epochs} " if progress else "",
            other.uri,
            changed,
        )


def _what_changed(noted: Mapping[str, Any] | None, identity: Identity) -> str | None:
    """None where the difference is one that was written into the spec: who did that does not expect it to go on."""
    if noted is None:
        return "an earlier labelmill began it with another spec or other pictures"
    fields = list(differing(noted.get("spec"), identity.source))
    if not set(fields) <= set(identity.variables):
        return None
    start: Mapping[str, str] = noted.get("start", {})
    changes = [f"{field} was another" for field in fields]
    changes += ["the labelled pictures were others"] if noted.get("data") != identity.fingerprint else []
    changes += [f"{name} was another" for name in identity.start if start.get(name) != identity.start[name]]
    return ", ".join(changes) or None
