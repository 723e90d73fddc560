"""What a cluster knows of a job that was handed to it."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

__all__ = ["Job"]

_OVER = ("SUCCEEDED", "FAILED", "STOPPED")


@dataclass(frozen=True, slots=True)
class Job:
    """`status` is one of Ray's: PENDING, RUNNING, SUCCEEDED, FAILED, STOPPED. `metadata` has what `submit` noted."""

    id: str
    status: str
    entrypoint: str
    message: str = ""
    started_at: datetime | None = None
    ended_at: datetime | None = None
    driver_exit_code: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, details: Any) -> "Job":
        """Of Ray's JobDetails."""
        return cls(
            details.submission_id,
            details.status.value,
            details.entrypoint,
            details.message or "",
            _time(details.start_time),
            _time(details.end_time),
            details.driver_exit_code,
            details.metadata or {},
        )

    @property
    def is_over(self) -> bool:
        return self.status in _OVER

    @property
    def has_failed(self) -> bool:
        """Whether the same work may be handed over once more."""
        return self.status in ("FAILED", "STOPPED")

    @property
    def exit_code(self) -> int | None:
        """As if it had run here; None while it runs. Ray keeps none of a job that it stopped, or that never began."""
        if not self.is_over:
            return None
        if self.status == "STOPPED":
            return 128 + signal.SIGTERM
        code = self.driver_exit_code
        if code is None:
            return 0 if self.status == "SUCCEEDED" else 1
        return 128 - code if code < 0 else code  # Python has a signal's number below zero, a shell above 128

    @property
    def duration_s(self) -> float | None:
        if self.started_at is None:
            return None
        return ((self.ended_at or datetime.now(UTC)) - self.started_at).total_seconds()


def _time(since_epoch_ms: int | None) -> datetime | None:
    return datetime.fromtimestamp(since_epoch_ms / 1000, UTC) if since_epoch_ms else None
