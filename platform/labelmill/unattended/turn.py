"""Whose turn it is: one run at a time. The spec's `schedule` says what becomes of an older one that still goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from labelmill.spec import EvaluateSpec, LabelSpec, TrainSpec
from labelmill.storage import Store
from labelmill.storage.lease import Lease, hold_lease
from labelmill.unattended.notice import tell_of_vanished

__all__ = ["turn_of"]


@contextmanager
def turn_of(spec: LabelSpec | TrainSpec | EvaluateSpec, store: Store, *, of: str = "table") -> Iterator[Lease]:
    """`hold_lease` for a job, which with `overlap: replace` has a run before it end. First it is told of those that
    vanished: at least once, and once unless this process is killed between the telling and its note of it.

    BusyError: another run holds the lease.
    """
    replaces = spec.schedule is not None and spec.schedule.overlap == "replace"
    with hold_lease(store, spec.name, of=of, replaces=replaces) as lease:
        for vanished in list(lease.vanished):
            if not tell_of_vanished(spec, vanished, of):
                break  # a later run tries again
            lease.told(vanished)
        yield lease
