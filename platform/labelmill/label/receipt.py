"""What a run did and what it cost, as JSON beside the table and as a few lines on the terminal."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from labelmill.label.stage import Chunk

__all__ = ["Receipt"]

_LABELS_SHOWN = 12


@dataclass
class Receipt:
    """The account of one run. `outcome`: complete | nothing to do | stopped."""

    run_id: str
    job: str
    model: str
    bundle_digest: str
    table: str
    images: str
    engine: str
    workers: str = ""
    outcome: str = "stopped"
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    pictures_listed: int = 0
    pictures_done_before: int = 0
    pictures_labelled: int = 0
    pictures_deleted: int = 0  # rows that say that a picture is no longer in the store
    commits: int = 0
    files: int = 0
    wall_s: float = 0.0
    labelling_s: float = 0.0  # from when the workers were asked for to the last commit
    pictures_per_s: float = 0.0  # over the whole run, its start included
    cpu_s: float = 0.0
    cpu_s_per_1000: float = 0.0
    peak_memory_bytes: int = 0
    retries: int = 0  # requests to the store that had to be sent again
    stage_s: dict[str, float] = field(default_factory=dict)  # summed over the workers
    statuses: dict[str, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)

    def add(self, chunk: Chunk) -> None:
        self.pictures_labelled += chunk.num_rows
        self.retries += chunk.retries
        self.statuses = dict(Counter(self.statuses) + Counter(chunk.statuses))
        self.labels = dict((Counter(self.labels) + Counter(chunk.labels)).most_common())
        for name, seconds in chunk.seconds.items():
            self.stage_s[name] = round(self.stage_s.get(name, 0.0) + seconds, 3)

    @property
    def failed(self) -> int:
        return self.pictures_labelled - self.statuses.get("ok", 0)

    @property
    def bottleneck(self) -> str | None:
        return max(self.stage_s, key=lambda name: self.stage_s[name]) if self.stage_s else None

    def close(self, *, wall_s: float, cpu_s: float, peak_memory_bytes: int) -> None:
        self.wall_s, self.cpu_s, self.peak_memory_bytes = round(wall_s, 2), round(cpu_s, 2), peak_memory_bytes
        if self.pictures_labelled:
            self.pictures_per_s = round(self.pictures_labelled / wall_s, 1)
            self.cpu_s_per_1000 = round(cpu_s / self.pictures_labelled * 1000, 2)

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "failed": self.failed, "bottleneck": self.bottleneck}, indent=2)

    def __str__(self) -> str:
        if self.outcome == "nothing to do":
            listed = f"{self.pictures_listed:,} pictures"
            return f"nothing to do: {self.table} holds a final row of {self.model} for all {listed}"
        lines = [
            f"{self.pictures_labelled:,} pictures labelled by {self.model}, {self.failed:,} of them without labels; "
            f"{self.pictures_done_before:,} were done before",
            f"{self.wall_s:.1f} s, {self.pictures_per_s:,.0f} pictures/s; "
            f"{self.cpu_s_per_1000:.1f} CPU-seconds per 1,000; "
            f"peak memory {self.peak_memory_bytes / 2**30:.2f} GiB; most time went into: {self.bottleneck or 'none'}",
            "statuses: " + _counts(self.statuses),
            "labels: " + (_counts(self.labels) or "none"),
            f"table: {self.table}   run: {self.run_id}",
        ]
        return "\n".join(lines)


def _counts(counts: dict[str, int]) -> str:
    shown = sorted(counts.items(), key=lambda item: -item[1])
    more = f", and {len(shown) - _LABELS_SHOWN} more" if len(shown) > _LABELS_SHOWN else ""
    return ", ".join(f"{name} {count:,}" for name, count in shown[:_LABELS_SHOWN]) + more
