"""A label job: make the label table agree with the image store, for one model.

List the store, subtract what the table holds, label the rest, commit as it goes. The first run, the nightly one, the
one after a crash and the backfill with a new model are the same: the table itself is the checkpoint.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Literal

from labelmill.cluster import Resources, connect, count_gpus
from labelmill.errors import FailureBudgetError, FencedError, SpecError, StorageError, TableError
from labelmill.label.inventory.inventory import Inventory, open_inventory
from labelmill.label.receipt.clock import Clock
from labelmill.label.receipt.page import receipt_html
from labelmill.label.receipt.progress import show_progress
from labelmill.label.receipt.receipt import Receipt
from labelmill.label.receipt.sheet import Sheet
from labelmill.label.receipt.usage import TreeUsage, WorkersUsage
from labelmill.label.todo.deletion import put_deleted
from labelmill.label.todo.plan import plan_todo, settings_digests
from labelmill.label.todo.precision import faster_in_bfloat16, precision_asked
from labelmill.label.todo.todo import Todo
from labelmill.label.work.chunk import Chunk
from labelmill.label.work.stage import Stage
from labelmill.label.work.workers import Workers, plan_workers
from labelmill.model.bundle import Bundle
from labelmill.model.engines import choose_engine
from labelmill.model.registry import Registry
from labelmill.spec import LabelSpec, LoadedSpec
from labelmill.storage import Store, open_store, traffic
from labelmill.table.data_file import DataFile
from labelmill.table.lease import Lease, hold_lease
from labelmill.table.receipts import keep_receipt
from labelmill.table.table import LabelTable
from labelmill.table.writer import TableWriter

__all__ = ["run"]

logger = logging.getLogger(__name__)

_FIRST_COMMIT_S, _LAST_COMMIT_S = 5.0, 60.0
_PROGRESS_S = 1.0
_BUDGET_FROM = 200
_BATCH_ON_CPU, _BATCH_ON_GPU = 32, 128  # nvJPEG on an H100: 13,400 pictures/s in batches of 32, 16,000 from 128 on
# A table of a few thousand files opens in well under a second; a run of days writes many more.
_COMPACT_EVERY_FILES = 1024


def run(loaded: LoadedSpec) -> Receipt:
    """Run the label job of a spec to its end and return its receipt.

    TableBusyError: another run is on the table. FailureBudgetError: too many pictures failed. Whatever ends the run,
    what it committed stays, and the same command goes on from there.
    """
    spec = loaded.spec
    if not isinstance(spec, LabelSpec):
        raise SpecError(f"{loaded.path}: expected kind: label, got {spec.kind!r}")
    bundles = [Registry(spec.registry).resolve(reference) for reference in spec.references]
    for bundle in bundles:
        bundle.verify()  # a damaged bundle, or a store with nothing in it, ends the run before anything is touched
    aside = open_store(open_store(spec.output).address("_labelmill"))
    inventory = open_inventory(spec.images, aside)
    inventory.check_not_empty()
    with TreeUsage() as usage, hold_lease(aside, spec.name) as lease:
        return _Run(loaded, spec, bundles, inventory, aside, lease, usage).go()


class _Run:
    """One run, from the lease to the receipt."""

    def __init__(
        self,
        loaded: LoadedSpec,
        spec: LabelSpec,
        bundles: list[Bundle],
        inventory: Inventory,
        aside: Store,
        lease: Lease,
        usage: TreeUsage,
    ) -> None:
        self.spec, self.bundles, self.aside, self.lease, self.usage = spec, bundles, aside, lease, usage
        self.clock, self.sheet, self.elsewhere = Clock(), Sheet(spec.receipt_pictures), WorkersUsage()
        self.local, self.asked_before = True, traffic()
        self.today = datetime.now(UTC).date()
        self.inventory = inventory
        self.writer = TableWriter(spec.output)
        self._small_files = 0
        num_gpus = count_gpus()
        self.settings = settings_digests(spec, bundles, num_gpus)
        self.receipt = Receipt(
            run_id=self.writer.run_id,
            job=spec.name,
            model=", ".join(bundle.reference for bundle in bundles),
            bundle_digest=", ".join(bundle.digest for bundle in bundles),
            table=self.writer.uri,
            images=inventory.describe,
            engine="",
            precision=", ".join(dict.fromkeys(precision_asked(spec, bundle, num_gpus) for bundle in bundles)),
            spec=loaded.source,
        )

    def go(self) -> Receipt:
        logger.info("listing %s", self.inventory.describe)
        with self.clock.step("listing and subtracting"):
            todo = self._plan()
            self._mark_deleted(todo)
        if not todo.num_rows:
            return self._close("nothing to do")
        logger.info("%s pictures to label of %s listed", f"{todo.num_rows:,}", f"{todo.listed:,}")
        with ExitStack() as until_the_end:
            with self.clock.step("starting Ray"):
                resources = until_the_end.enter_context(connect())
                # Ray reads its settings when it is imported, and connect() makes them.
                from labelmill.label.work.pipeline import label_chunks
            workers = plan_workers(resources, self.spec.engine, todo.num_chunks)
            with self.clock.step("choosing the engine"):
                stage = self._stage(todo, workers)
            self._take_workers(workers, stage, resources)
            logger.info("labelling by %s, %s", workers, self.receipt.engine)
            if advice := faster_in_bfloat16(self.spec, self.bundles, stage.engines):
                logger.info(advice)
            try:
                self._label(label_chunks(stage, workers), todo)
            except BaseException:
                self._close_stopped()
                raise
            self.usage.sample()  # the workers end with Ray, and what they used with them
        self.writer.compact(self.today)
        todo.remove()
        return self._close("complete")

    def _take_workers(self, workers: Workers, stage: Stage, resources: Resources) -> None:
        self.local = resources.local
        self.clock.start_labelling(workers.count)
        self.receipt.engine = ", ".join(dict.fromkeys(stage.engines))
        self.receipt.workers, self.receipt.num_workers = str(workers), workers.count
        self.receipt.cores, self.receipt.gpus = workers.cores, workers.gpus

    def _plan(self) -> Todo:
        for key in self.aside.keys("runs/"):
            self.aside.delete(key)  # what a run that was killed left; the lease says that it is over
        todo = plan_todo(
            self.inventory.list(),
            LabelTable(self.spec.output),
            [bundle.digest for bundle in self.bundles],
            self.settings,
            models=[bundle.reference for bundle in self.bundles],
            store=self.aside,
            run_id=self.writer.run_id,
            retry=self.spec.retry,
            below=self.inventory.complete_below,
        )
        self.receipt.pictures_listed = todo.listed
        self.receipt.pictures_done_before = todo.listed - todo.num_rows
        return todo

    def _mark_deleted(self, todo: Todo) -> None:
        if todo.num_gone:
            logger.info("%s pictures are no longer in the store", f"{todo.num_gone:,}")
            files = put_deleted(
                todo,
                self.bundles,
                open_store(self.writer.uri),
                settings_digests=self.settings,
                run_id=self.writer.run_id,
                labelled_on=self.today,
            )
            self._commit(list(files))
            self.receipt.pictures_deleted = todo.num_gone

    def _stage(self, todo: Todo, workers: Workers) -> Stage:
        spec = self.spec
        exclusive = open_store(spec.output).honours_write_if_absent()
        return Stage(
            bundles=tuple(self.bundles),
            engines=tuple(self._engine(bundle, workers) for bundle in self.bundles),
            precision=spec.precision,
            todo=todo,
            output=self.writer.uri,
            run_id=self.writer.run_id,
            labelled_on=self.today.isoformat(),
            settings_digests=self.settings,
            scores=spec.scores,
            embeddings=spec.embeddings,
            max_pixels=spec.max_pixels,
            timeout_s=spec.timeout_s,
            batch_size=spec.batch_size or (_BATCH_ON_GPU if workers.gpus else _BATCH_ON_CPU),
            names_are_exclusive=exclusive,
            receipt_pictures=spec.receipt_pictures,
        )

    def _engine(self, bundle: Bundle, workers: Workers) -> Literal["openvino", "torch"]:
        """Chosen here and once. Workers that choose OpenVINO then find the network converted, and one that it cannot
        take is told of before they start."""
        if workers.gpus or self.spec.engine == "torch":
            return "torch"
        if self.spec.engine == "auto" and choose_engine(bundle, self.spec.precision) == "torch":
            return "torch"
        # A run with nothing to do needs none of it.
        from labelmill.model.engines.openvino_engine import converted_graph, takes_bfloat16

        graph = converted_graph(bundle, embeddings=self.spec.embeddings)
        if self.spec.precision == "bfloat16":
            takes_bfloat16(bundle, graph)  # so that it is said here, and not only in the workers' logs
        return "openvino"

    def _label(self, chunks: Iterator[Chunk], todo: Todo) -> None:
        """Take finished chunks, commit them at intervals that grow with the run, and stop when too many fail."""
        waiting: list[DataFile] = []
        started = last_commit = last_shown = time.monotonic()
        try:
            for chunk in _with_ticks(chunks):
                now = time.monotonic()
                if chunk is not None:
                    self._account(chunk)
                    waiting.append(chunk.file)
                    self._check_budget()
                if waiting and now - last_commit >= _commit_interval_s(now - started):
                    waiting = self._commit(waiting)
                    last_commit = time.monotonic()
                if now - last_shown >= _PROGRESS_S:
                    show_progress(self.clock.pace(), self.receipt, todo.num_rows)
                    last_shown = now
            self._commit(waiting)
        except BaseException:
            self._keep(waiting)
            raise
        finally:
            self.receipt.labelling_s = round(time.monotonic() - started, 2)

    def _account(self, chunk: Chunk) -> None:
        self.clock.add(chunk)
        self.receipt.add(chunk)
        self.sheet.add(chunk.samples, self.receipt.labels)
        if not self.local:
            self.elsewhere.add(chunk)

    def _keep(self, files: list[DataFile]) -> None:
        """On the way out of a stopped run: commit what is finished. What stopped the run is what its user must hear of,
        unless that is another run, of which the rest follows."""
        try:
            self.lease.check()
            self._commit(files)
        except FencedError:
            raise
        except (TableError, StorageError) as exc:
            logger.warning("%d finished files were not committed, the next run labels them: %s", len(files), exc)

    def _commit(self, files: list[DataFile]) -> list[DataFile]:
        if files:
            self.lease.check()
            self.writer.commit(files)
            self.receipt.commits += 1
            self.receipt.files += len(files)
            self._small_files += len(files)
            if self._small_files >= _COMPACT_EVERY_FILES:
                self.writer.compact(self.today)
                self._small_files = 0
        return []

    def _check_budget(self) -> None:
        receipt, limit = self.receipt, self.spec.max_failure_rate
        tried = receipt.pictures_labelled
        if tried >= _BUDGET_FROM and receipt.failed > limit * tried:
            failures = {name: count for name, count in receipt.statuses.items() if name != "ok"}
            raise FailureBudgetError(
                f"{receipt.failed:,} of the {tried:,} pictures tried have no labels ({receipt.failed / tried:.1%}), "
                f"max_failure_rate allows {limit:.1%}: {', '.join(f'{n} {c:,}' for n, c in failures.items())}. "
                f"The run stopped and kept what it committed. `labelmill labels {receipt.table}` shows the reasons; "
                "mend the store or raise max_failure_rate, and run the same command again."
            )

    def _close_stopped(self) -> None:
        logger.info("the run stopped; what it committed stays, and the same command goes on from there")
        try:
            self._close("stopped")
        except StorageError as exc:  # what stopped the run may well be the place where its receipt goes
            logger.warning("the receipt of this run was not written: %s", exc)

    def _close(self, outcome: str) -> Receipt:
        self.usage.sample()
        self.receipt.outcome = outcome
        self.receipt.traffic += traffic() - self.asked_before
        self.receipt.close(
            self.clock,
            cpu_s=self.usage.cpu_s + self.elsewhere.cpu_s,
            peak_memory_bytes=self.usage.peak_memory_bytes + self.elsewhere.peak_memory_bytes,
            prices=self.spec.prices,
        )
        self.receipt.failures = self.sheet.reasons()
        keep_receipt(self.aside, self.receipt.run_id, self.receipt.to_json(), receipt_html(self.receipt, self.sheet))
        return self.receipt


def _commit_interval_s(running_s: float) -> float:
    return min(_LAST_COMMIT_S, max(_FIRST_COMMIT_S, running_s / 10))


def _with_ticks(chunks: Iterator[Chunk]) -> Iterator[Chunk | None]:
    """The chunks as they come, and None twice a second in between, so that a slow chunk holds up no commit."""
    arrivals: queue.SimpleQueue[Chunk | BaseException | None] = queue.SimpleQueue()

    def drain() -> None:
        try:
            for chunk in chunks:
                arrivals.put(chunk)
            arrivals.put(None)
        except BaseException as exc:  # noqa: BLE001 - raised again below, in the thread that the user sees
            arrivals.put(exc)

    threading.Thread(target=drain, name="chunks", daemon=True).start()
    while True:
        try:
            item = arrivals.get(timeout=0.5)
        except queue.Empty:
            yield None
            continue
        if item is None:
            return
        if isinstance(item, BaseException):
            raise item
        yield item
