"""One run as its receipt tells of it, and all runs of a table."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import ValidationError

from labelmill.errors import NotFoundError, StorageError
from labelmill.spec import Schedule
from labelmill.storage import Store, open_store, read_pictures
from labelmill.storage.lease import held_by
from labelmill.table.receipts import KILLED, KILLED_CODE, RUNNING, receipt_keys

__all__ = ["Night", "nights"]

_AT_ONCE, _IN_MEMORY = 32, 256
_SILENT_FOR = timedelta(minutes=10)  # a holder gives a sign of life every five seconds; clocks differ by less than this


@dataclass(frozen=True)
class Night:
    """One run. `exit_code` is None while it goes on, and of a stopped run of a version that kept none."""

    run_id: str
    job: str
    outcome: str
    exit_code: int | None
    error: str
    started_at: datetime
    duration_s: float
    model: str
    listed: int
    labelled: int
    failed: int
    held: int
    vanished: int
    statuses: dict[str, int] = field(default_factory=dict)
    cost: float | None = None
    currency: str = ""
    page: str = ""
    schedule: Schedule | None = None

    @property
    def ended_at(self) -> datetime:
        return self.started_at + timedelta(seconds=self.duration_s)

    @classmethod
    def from_receipt(cls, receipt: dict[str, Any]) -> Night:
        """ValueError: that is none."""
        try:
            started_at = datetime.fromisoformat(receipt["started_at"])
            spec, cost = receipt.get("spec") or {}, receipt.get("cost") or {}
            labelled, statuses = int(receipt.get("pictures_labelled", 0)), receipt.get("statuses") or {}
            return cls(
                run_id=str(receipt["run_id"]),
                job=str(receipt["job"]),
                outcome=str(receipt["outcome"]),
                exit_code=_exit_code(receipt),
                error=str(receipt.get("error") or ""),
                started_at=started_at if started_at.tzinfo else started_at.replace(tzinfo=UTC),
                duration_s=max(0.0, float(receipt.get("wall_s") or 0.0)),
                model=str(receipt.get("model") or ""),
                listed=int(receipt.get("pictures_listed", 0)),
                labelled=labelled,
                failed=int(receipt.get("failed", 0)),
                held=int(receipt.get("pictures_held", 0)),
                vanished=int(receipt.get("pictures_vanished", receipt.get("pictures_deleted", 0))),
                statuses={str(name): int(count) for name, count in statuses.items()},
                cost=float(cost["total"]) if "total" in cost else None,
                currency=str(cost.get("currency") or ""),
                page=str(receipt.get("page") or ""),
                schedule=_schedule(spec.get("schedule")),
            )
        except (AttributeError, KeyError, OverflowError, TypeError) as exc:
            raise ValueError(f"not a receipt: {exc}") from exc


def nights(table: str) -> list[Night]:
    """Every run on the table, in the order in which they began; none where none ever ran. A receipt that is damaged, or
    a copy under another name, is left out."""
    aside = open_store(open_store(table).address("_labelmill"))
    found = sorted(_read(aside), key=lambda night: (night.started_at, night.run_id))
    at_work = [night for night in found if night.outcome == RUNNING]
    if at_work:
        said = _as_the_lease_says(aside)
        last = max(at_work, key=lambda night: night.run_id)
        found = [
            night if night.outcome != RUNNING else said(night) if night is last else _killed(night) for night in found
        ]
    return found


def _read(aside: Store) -> Iterator[Night]:
    keys = receipt_keys(aside)
    for start in range(0, len(keys), _IN_MEMORY):
        some = keys[start : start + _IN_MEMORY]
        for key, found in zip(some, read_pictures([(aside.address(key), None) for key in some], _AT_ONCE), strict=True):
            if isinstance(found, NotFoundError):
                continue
            if isinstance(found, StorageError):
                raise found
            with suppress(ValueError):
                receipt = json.loads(found)
                if isinstance(receipt, dict) and key.endswith(f"/{receipt.get('run_id')}.json"):
                    yield Night.from_receipt(receipt)


def _as_the_lease_says(aside: Store) -> Callable[[Night], Night]:
    """What becomes of the last run that says it is at work: nobody has closed its receipt yet if it was killed."""
    holder = held_by(aside)
    if holder is None:
        return _killed
    seen = holder.last_seen
    if seen is not None and datetime.now(UTC) - seen > _SILENT_FOR:
        return lambda night: replace(_killed(night), error=f"no sign of life since {seen:%Y-%m-%d %H:%M:%S} UTC")
    return lambda night: night


def _killed(night: Night) -> Night:
    return replace(night, outcome=KILLED, exit_code=KILLED_CODE, error="it was killed, and no run has come since")


def _exit_code(receipt: dict[str, Any]) -> int | None:
    if "exit_code" in receipt:
        return None if receipt["exit_code"] is None else int(receipt["exit_code"])
    return 0 if receipt["outcome"] in ("complete", "nothing to do") else None


def _schedule(written: Any) -> Schedule | None:
    """A receipt may be of a version that knew another form."""
    try:
        return Schedule.model_validate(written) if written else None
    except ValidationError:
        return None
