"""What a run did and what it cost: the account that is kept as JSON and as a page, and a few lines on the terminal."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from labelmill.label.receipt.clock import COMMIT, START_UP, Clock, NodeShare
from labelmill.label.receipt.money import Cost, cost_of
from labelmill.label.work.chunk import Chunk
from labelmill.metrics.histograms import add_histograms
from labelmill.spec import Prices
from labelmill.storage import Traffic
from labelmill.table.receipts import RUNNING

__all__ = ["Receipt"]

_LABELS_SHOWN = 12


@dataclass
class Receipt:
    """The account of one run. `outcome`: running | complete | nothing to do | stopped; skipped, where another run held
    the table; killed, as the run after it found."""

    run_id: str
    job: str
    model: str
    bundle_digest: str
    table: str
    images: str
    engine: str
    precision: str  # that was asked for
    workers: str = ""
    num_workers: int = 0
    cores: float = 0.0  # that the workers held
    gpus: float = 0.0
    outcome: str = RUNNING
    exit_code: int | None = None  # that of the process, once it ends
    error: str = ""  # why it is not 0, on one line
    started_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    pictures_listed: int = 0
    pictures_done_before: int = 0
    pictures_labelled: int = 0
    pictures_deleted: int = 0  # rows that say that a picture is no longer in the store
    pictures_returned: int = 0  # rows written again of pictures that are there again as they were
    pictures_archived: int = 0  # rows that say that a picture lies in an archive
    pictures_held: int = 0  # that the table held below the listed prefix, before the run
    pictures_vanished: int = 0  # of these, listed no more
    commits: int = 0
    files: int = 0
    wall_s: float = 0.0
    labelling_s: float = 0.0  # from when the workers were asked for to the last commit
    pictures_per_s: float = 0.0  # over the whole run, its start included
    steady_pictures_per_s: float | None = None  # with every worker at it; None when the run was too short to tell
    pictures_per_core_s: float | None = None  # of the steady rate
    pictures_per_gpu_s: float | None = None
    cpu_s: float = 0.0
    cpu_s_per_1000: float = 0.0
    peak_memory_bytes: int = 0
    startup_s: dict[str, float] = field(default_factory=dict)  # its steps
    stage_s: dict[str, float] = field(default_factory=dict)  # summed over the workers
    wall_by_stage_s: dict[str, float] = field(default_factory=dict)  # adds up to wall_s
    bucket_s: float = 1.0
    pictures_by_bucket: list[float] = field(default_factory=list)  # finished in each bucket_s since the start
    retries: int = 0  # requests to the store that had to be sent again
    traffic: Traffic = field(default_factory=Traffic)
    cost: Cost | None = None
    statuses: dict[str, int] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    histograms: dict[str, dict[str, int]] = field(default_factory=dict)
    failures: list[dict[str, str]] = field(default_factory=list)  # a few of each status: status, uri, error
    nodes: dict[str, NodeShare] = field(default_factory=dict)  # of the cluster, that labelled something
    computed_in: dict[str, str] = field(default_factory=dict)  # the precision that each machine took, by its name
    operators: dict[str, dict[str, float]] = field(default_factory=dict)  # what each operator of Ray Data did
    spec: dict[str, Any] = field(default_factory=dict)

    def add(self, chunk: Chunk) -> None:
        self.pictures_labelled += chunk.num_rows
        self.computed_in |= chunk.computed_in
        self.retries += sum(spent.retries for spent in chunk.spent)
        for spent in chunk.spent:
            self.traffic += spent.traffic
        self.statuses = dict(Counter(self.statuses) + Counter(chunk.statuses))
        self.labels = dict((Counter(self.labels) + Counter(chunk.labels)).most_common())
        add_histograms(self.histograms, chunk.histograms)
        for name, seconds in chunk.seconds.items():
            self.stage_s[name] = round(self.stage_s.get(name, 0.0) + seconds, 3)

    @property
    def failed(self) -> int:
        return self.pictures_labelled - self.statuses.get("ok", 0) - self.statuses.get("archived", 0)

    @property
    def bottleneck(self) -> str | None:
        """Where most of the whole run's wall-clock went."""
        return _largest(self.wall_by_stage_s)

    @property
    def limited_by(self) -> str | None:
        """Where most of it went while the workers were labelling: what limits a run that is long enough."""
        return _largest({name: s for name, s in self.wall_by_stage_s.items() if name not in (START_UP, COMMIT)})

    def close(self, clock: Clock, *, cpu_s: float, peak_memory_bytes: int, prices: Prices | None) -> None:
        wall_s = clock.elapsed_s
        self.wall_s, self.cpu_s, self.peak_memory_bytes = round(wall_s, 2), round(cpu_s, 2), peak_memory_bytes
        self.wall_by_stage_s = {name: round(seconds, 3) for name, seconds in clock.wall_by_stage_s().items()}
        rest_s = self.wall_by_stage_s[START_UP] - sum(clock.startup_s.values())
        self.startup_s = clock.startup_s | {"starting the workers and all else": round(max(0.0, rest_s), 3)}
        self.nodes = clock.nodes
        self.bucket_s, self.pictures_by_bucket = clock.bucket_s, [round(count, 2) for count in clock.buckets]
        if self.pictures_labelled:
            self.pictures_per_s = round(self.pictures_labelled / wall_s, 1)
            self.cpu_s_per_1000 = round(cpu_s / self.pictures_labelled * 1000, 2)
            self._take_steady_rate(clock.steady_pictures_per_s())
        if prices:
            hours = wall_s / 3600
            self.cost = cost_of(
                prices, core_hours=self.cores * hours, gpu_hours=self.gpus * hours, traffic=self.traffic
            )

    def _take_steady_rate(self, steady: float | None) -> None:
        if steady is not None:
            self.steady_pictures_per_s = round(steady, 1)
            self.pictures_per_core_s = round(steady / self.cores, 1) if self.cores else None
            self.pictures_per_gpu_s = round(steady / self.gpus, 1) if self.gpus else None

    @property
    def page(self) -> str:
        """Where its page lies, beside the table; none of a run that is not over, or held no table."""
        if self.outcome == RUNNING or not self.images:
            return ""
        return f"{self.table.rstrip('/')}/_labelmill/receipts/{self.run_id}.html"

    def to_json(self) -> str:
        said = {name: getattr(self, name) for name in ("failed", "bottleneck", "limited_by", "page")}
        found = {**asdict(self), **said}
        if self.cost:
            per_million = self.cost.per_million(self.pictures_labelled)
            found["cost"] = {**asdict(self.cost), "total": self.cost.total, "per_million": per_million}
        return json.dumps(found, indent=2)

    def facts(self) -> dict[str, Any]:
        """What whoever hears of the end of the run is told of."""
        names = ("outcome", "run_id", "table", "model", "started_at", "pictures_listed", "pictures_labelled")
        more = ("failed", "pictures_deleted", "pictures_held", "pictures_vanished", "statuses", "labels", "page")
        cost = {"cost": round(self.cost.total, 6), "currency": self.cost.currency} if self.cost else {}
        summary = {"summary": str(self)} if self.pictures_labelled or self.outcome != "stopped" else {}
        return {name: getattr(self, name) for name in names + more} | cost | summary

    def __str__(self) -> str:
        if self.outcome == "nothing to do":
            listed = f"{self.pictures_listed:,} pictures"
            nothing = f"nothing to do: {self.table} holds a final row of {self.model} for all {listed}"
            return f"{nothing}{self._unread('; ')}"
        lines = [
            f"{self.pictures_labelled:,} pictures labelled by {self.model}, {self.failed:,} of them without labels; "
            f"{self.pictures_done_before:,} were done before{self._unread(', ')}",
            f"{self.wall_s:.1f} s, {self.pictures_per_s:,.0f} pictures/s{self._steady()}; "
            f"{self.cpu_s_per_1000:.1f} CPU-seconds per 1,000; peak memory {self.peak_memory_bytes / 2**30:.2f} GiB",
            f"most time went into: {self.bottleneck}{self._limit()}",
            "statuses: " + _counts(self.statuses),
            "labels: " + (_counts(self.labels) or "none"),
            *self._cost(),
            f"table: {self.table}   run: {self.run_id}",
            f"receipt: {self.page}",
        ]
        return "\n".join(line.replace("\n", "\\n") for line in lines)  # a label's name may hold one

    def _unread(self, before: str) -> str:
        counts = {
            "are gone": self.pictures_deleted,
            "came back as they were": self.pictures_returned,
            "lie in an archive": self.pictures_archived,
        }
        return "".join(f"{before}{count:,} {what}" for what, count in counts.items() if count)

    def _steady(self) -> str:
        if self.steady_pictures_per_s is None:
            return ""
        unit = (self.pictures_per_gpu_s, "GPU") if self.pictures_per_gpu_s else (self.pictures_per_core_s, "core")
        return f"; steady {self.steady_pictures_per_s:,.0f} pictures/s, {unit[0]:,.0f} a {unit[1]}"

    def _limit(self) -> str:
        share = self.wall_by_stage_s.get(self.bottleneck or "", 0.0) / max(self.wall_s, 1e-9)
        other = f"; while labelling: {self.limited_by}" if self.limited_by != self.bottleneck else ""
        return f" ({share:.0%}){other}"

    def _cost(self) -> list[str]:
        if not self.cost:
            return []
        million = self.cost.per_million(self.pictures_labelled)
        return [
            f"cost: {self.cost.said(self.cost.total)}"
            + (f", {self.cost.said(million)} per million pictures" if million is not None else "")
        ]


def _largest(seconds: Mapping[str, float]) -> str | None:
    return max(seconds, key=lambda name: seconds[name]) if seconds else None


def _counts(counts: dict[str, int]) -> str:
    shown = sorted(counts.items(), key=lambda item: -item[1])
    more = f", and {len(shown) - _LABELS_SHOWN} more" if len(shown) > _LABELS_SHOWN else ""
    return ", ".join(f"{name} {count:,}" for name, count in shown[:_LABELS_SHOWN]) + more
