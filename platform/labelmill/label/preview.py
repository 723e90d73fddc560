"""What a label job would do, without doing it: counts, bytes, requests, time and money.

It lists and subtracts for real, and labels a random sample of what is left as one worker would. It writes nothing but
scratch files of its own and this machine's caches: it makes no table and takes no lease.
"""

from __future__ import annotations

import json
import logging
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import pyarrow.compute as pc

from labelmill.cluster import Resources, resources_at_hand
from labelmill.errors import FailureBudgetError, SpecError, VanishedError
from labelmill.label.inventory.inventory import open_inventory
from labelmill.label.receipt.amounts import bytes_text, duration
from labelmill.label.receipt.clock import START_UP
from labelmill.label.receipt.money import Cost, cost_of
from labelmill.label.rehearsal import SAMPLE_PICTURES, Rehearsal, rehearse
from labelmill.label.todo.plan import plan_todo
from labelmill.label.todo.settings import Settings
from labelmill.label.todo.todo import Todo
from labelmill.model.bundle import Bundle
from labelmill.model.registry import Registry
from labelmill.parquet import read_parquet
from labelmill.spec import LabelSpec, LoadedSpec
from labelmill.storage import Traffic, open_store, requests_limited, traffic
from labelmill.table.receipts import past_receipts
from labelmill.table.table import LabelTable

__all__ = ["Preview", "preview"]

logger = logging.getLogger(__name__)

_START_S = 8.0  # of Ray and the workers, where no run on this table has told: what a start may take
_BEAT_S = 5.0
_FAILURES_SHOWN = 5


@dataclass(frozen=True)
class Preview:
    """What a run would do now. `sample`, `pictures_per_s` and `limited_by` are None when there is nothing to do."""

    job: str
    model: str
    images: str
    table: str
    pictures_listed: int
    pictures_done: int
    pictures_to_label: int
    pictures_deleted: int
    pictures_returned: int
    pictures_archived: int
    bytes_to_read: int
    workers: int
    cores: float
    max_failure_rate: float
    sample: Rehearsal | None
    startup_s: float
    labelling_s: float
    requests: Traffic
    cost: Cost | None
    vanished: str | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def wall_s(self) -> float:
        return self.startup_s + self.labelling_s

    @property
    def core_hours(self) -> float:
        return self.cores * self.wall_s / 3600

    @property
    def would_stop(self) -> bool:
        """Whether too many pictures are gone, or so many of the sample failed that it is hardly chance: the run would
        end over max_vanished_rate or max_failure_rate."""
        if self.vanished:
            return True
        if not self.sample or self.pictures_to_label < SAMPLE_PICTURES:
            return False
        return _at_least(self.sample.failed, self.sample.num_pictures) > self.max_failure_rate

    @property
    def exit_code(self) -> int:
        """What the run would end with."""
        if not self.would_stop:
            return 0
        return VanishedError.exit_code if self.vanished else FailureBudgetError.exit_code

    def to_json(self) -> str:
        found = {**asdict(self), "wall_s": self.wall_s, "core_hours": self.core_hours, "would_stop": self.would_stop}
        if self.cost:
            per_million = self.cost.per_million(self.pictures_to_label)
            found["cost"] = {**asdict(self.cost), "total": self.cost.total, "per_million": per_million}
        return json.dumps(found, indent=2)

    def __str__(self) -> str:
        lines = [
            f"{self.job}: {self.model} on {self.images}",
            f"{self.pictures_listed:,} pictures listed: {self.pictures_to_label:,} to label, {self.pictures_done:,} "
            f"done, {self.pictures_deleted:,} deleted{self._unread()}",
        ]
        if self.vanished:
            lines.append(f"the run would stop: {self.vanished}")
        elif self.sample:
            lines += [*_sample_lines(self.sample), *self._prediction()]
        else:
            lines.append("nothing to do")
        lines += [*self.notes, f"nothing was written to {self.table}"]
        return "\n".join(line.replace("\n", "\\n") for line in lines)  # a picture's name may hold one

    def _unread(self) -> str:
        counts = {"returned": self.pictures_returned, "archived": self.pictures_archived}
        return "".join(f", {count:,} {what}" for what, count in counts.items() if count)

    def _prediction(self) -> list[str]:
        assert self.sample
        rate = self.pictures_to_label / max(self.labelling_s, 1e-9)
        asked = self.requests
        if self.cost:
            million = self.cost.per_million(self.pictures_to_label) or 0.0
            money = f"{self.cost.said(self.cost.total)}, {self.cost.said(million)} per million pictures"
        else:
            money = f"{self.core_hours:.3g} core-hours; with `prices` in the spec, money"
        return [
            f"time: {duration(self.wall_s)}: {duration(self.startup_s)} until the first picture, then "
            f"{duration(self.labelling_s)} at {rate:,.0f} pictures/s on {self.workers} workers, limited by "
            f"{self.sample.limited_by}",
            f"requests: {asked.lists:,} list, {asked.gets:,} get, {asked.puts:,} put; "
            f"{bytes_text(self.bytes_to_read)} to read",
            f"cost: {money}",
            *self._warning(),
        ]

    def _warning(self) -> list[str]:
        if not self.sample or not self.would_stop:
            return []
        return [
            f"the run would stop: {self.sample.failed} of {self.sample.num_pictures} pictures failed, and "
            f"max_failure_rate allows {self.max_failure_rate:.1%}"
        ]


def preview(loaded: LoadedSpec) -> Preview:
    """What `labelmill run` of this spec would do now.

    SpecError: it is no label job. NotFoundError, ForbiddenError, TableError …: what the run would end with at once.
    """
    spec = loaded.spec
    if not isinstance(spec, LabelSpec):
        raise SpecError(
            f"{loaded.path}: expected kind: label, got {spec.kind!r}. Only a label job can be foreseen from its store "
            f"and its table; `labelmill check {loaded.path}` says whether what this one names can be reached."
        )
    with requests_limited(spec.max_requests_per_s):
        return _previewed(spec)


def _previewed(spec: LabelSpec) -> Preview:
    bundles = [Registry(spec.registry).resolve(reference) for reference in spec.references]
    for bundle in bundles:
        bundle.verify()
    resources = resources_at_hand()
    before, started = traffic(), time.monotonic()
    with TemporaryDirectory(prefix="labelmill-plan-") as folder:
        todo = _todo(spec, bundles, resources, folder)
        listing_s, listing = time.monotonic() - started, traffic() - before
        logger.info("%s of %s pictures to label", f"{todo.num_rows:,}", f"{todo.listed:,}")
        sample = rehearse(spec, bundles, todo) if todo.num_rows and not todo.vanished else None
        return _predicted(spec, bundles, resources, todo, sample, listing_s=listing_s, listing=listing)


def _todo(spec: LabelSpec, bundles: Sequence[Bundle], resources: Resources, folder: str) -> Todo:
    scratch, table = open_store(folder), LabelTable.if_there(spec.output)
    # The index of tar shards is a cache; beside a table that is there it serves the run as well.
    index = open_store(open_store(spec.output).address("_labelmill")) if table else scratch
    inventory = open_inventory(spec.images, index)
    logger.info("listing %s", inventory.describe)
    return plan_todo(
        inventory.list(),
        table,
        [bundle.digest for bundle in bundles],
        Settings.of(spec),
        models=[bundle.reference for bundle in bundles],
        store=scratch,
        run_id="plan",
        retry=spec.retry,
        below=inventory.complete_below,
        unseen=lambda: inventory.unseen,
        max_vanished_rate=spec.max_vanished_rate,
    )


def _predicted(
    spec: LabelSpec,
    bundles: Sequence[Bundle],
    resources: Resources,
    todo: Todo,
    sample: Rehearsal | None,
    *,
    listing_s: float,
    listing: Traffic,
) -> Preview:
    workers = max(1, min(resources.cpus, todo.num_chunks))
    notes = []
    labelling_s = todo.num_rows * sample.picture_s / workers if sample else 0.0
    if sample and spec.max_requests_per_s:
        labelling_s = max(labelling_s, todo.num_rows * sample.gets_a_picture / spec.max_requests_per_s)
        notes.append(f"max_requests_per_s allows {spec.max_requests_per_s:g} requests a second")
    if resources.gpus and spec.engine != "openvino":
        notes.append("the forward pass was measured on a CPU core; the cluster's GPUs will be faster")
    startup_s = listing_s + (_start_s(spec.output) if sample else 0.0)
    wall_s = startup_s + labelling_s
    read = _bytes_of(todo)
    requests = _requests(spec, todo, sample, listing, wall_s, read)
    return Preview(
        job=spec.name,
        model=", ".join(bundle.reference for bundle in bundles),
        images=open_inventory(spec.images).describe,
        table=open_store(spec.output).uri,
        pictures_listed=todo.listed,
        pictures_done=todo.num_done,
        pictures_to_label=todo.num_rows,
        pictures_deleted=todo.num_gone,
        pictures_returned=todo.num_returned,
        pictures_archived=todo.num_archived,
        bytes_to_read=read,
        workers=workers if sample else 0,
        cores=float(workers) if sample else 0.0,
        max_failure_rate=spec.max_failure_rate,
        sample=sample,
        startup_s=startup_s,
        labelling_s=labelling_s,
        requests=requests,
        cost=cost_of(spec.prices, core_hours=workers * wall_s / 3600, gpu_hours=0.0, traffic=requests)
        if spec.prices
        else None,
        vanished=str(todo.vanished) if todo.vanished else None,
        notes=notes,
    )


def _start_s(table: str) -> float:
    """What Ray and the workers took to start in the last run here that got so far, less its listing."""
    for receipt in islice(past_receipts(table), 5):
        start_up = receipt.get("wall_by_stage_s", {}).get(START_UP)
        if receipt.get("pictures_labelled") and start_up:
            listing_s: float = receipt.get("startup_s", {}).get("listing and subtracting", 0.0)
            return max(0.0, float(start_up) - listing_s)
    return _START_S


def _bytes_of(todo: Todo) -> int:
    if not todo.num_rows:
        return 0
    parts = Path(todo.folder).glob("todo-*.parquet")
    sizes = (read_parquet(part.read_bytes(), ["size_bytes"])["size_bytes"] for part in parts)
    return sum(pc.sum(sizes_bytes).as_py() or 0 for sizes_bytes in sizes)


def _requests(
    spec: LabelSpec, todo: Todo, sample: Rehearsal | None, listing: Traffic, wall_s: float, read_bytes: int
) -> Traffic:
    """What the run would ask: this listing, a read for each picture, and for each chunk a look for its file, the file
    and its share of the to-do list; a lease that is renewed."""
    if not sample:
        return listing
    chunks, beats = todo.num_chunks, math.ceil(wall_s / _BEAT_S)
    in_store = not open_store(spec.output).uri.startswith(os.sep)
    return listing + Traffic(
        lists=beats if in_store else 0,
        gets=math.ceil(todo.num_rows * sample.gets_a_picture) + (chunks if in_store else 0),
        puts=chunks + beats if in_store else 0,
        read_bytes=read_bytes,
    )


def _sample_lines(sample: Rehearsal) -> list[str]:
    met = ", ".join(f"{status} {count}" for status, count in sample.statuses.items())
    lines = [
        f"a sample of {sample.num_pictures}: {met}",
        f"  median picture: {bytes_text(sample.size_bytes)}, decode {sample.decode_s * 1000:.2f} ms, "
        f"forward {sample.forward_s * 1000:.2f} ms on one core; fetch {sample.fetch_s * 1000:.2f} ms",
    ]
    lines += [f"  {f['status']}: {f['uri']}: {f['error']}" for f in sample.failures[:_FAILURES_SHOWN]]
    return lines


def _at_least(failed: int, tried: int) -> float:
    """The lower end of Wilson's 95% interval for a share (Wilson 1927): what hardly is chance."""
    z = 1.645
    share = failed / tried
    middle: float = share + z * z / (2 * tried)
    spread: float = z * math.sqrt(share * (1 - share) / tried + z * z / (4 * tried * tried))
    return float((middle - spread) / (1 + z * z / tried))
