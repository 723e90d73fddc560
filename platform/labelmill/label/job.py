"""A label job: make the label table agree with the image store, for one model.

List the store, subtract what the table holds, label the rest, commit as it goes. The first run, the nightly one, the
one after a crash and the backfill with a new model are the same: the table itself is the checkpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime

import pyarrow as pa

from labelmill.cluster import Connection, connect_ahead
from labelmill.ending import Ends, how_it_ends
from labelmill.errors import SpecError, StorageError, VanishedError
from labelmill.label.budget import Budget
from labelmill.label.commits import Commits
from labelmill.label.engine import engine_for
from labelmill.label.inventory.inventory import Inventory, open_inventory
from labelmill.label.labelling import Labelling
from labelmill.label.receipt.account import Account
from labelmill.label.receipt.early import kept_if_it_ends_early
from labelmill.label.receipt.receipt import Receipt
from labelmill.label.receipt.usage import TreeUsage
from labelmill.label.spread.workers import Workers, plan_workers, wants_gpus
from labelmill.label.todo.plan import plan_todo
from labelmill.label.todo.settings import Settings
from labelmill.label.todo.todo import Todo
from labelmill.label.todo.unread import put_unread
from labelmill.label.work.stage import Stage
from labelmill.model.bundle import Bundle
from labelmill.model.registry import Registry
from labelmill.spec import LabelSpec, LoadedSpec
from labelmill.storage import Store, open_store, part_of_driver, requests_limited
from labelmill.storage.lease import Lease
from labelmill.table.table import LabelTable
from labelmill.table.writer import TableWriter
from labelmill.unattended import note, turn_of

__all__ = ["run"]

logger = logging.getLogger(__name__)

_BATCH_ON_CPU, _BATCH_ON_GPU = 32, 128  # nvJPEG on an H100: 13,400 pictures/s in batches of 32, 16,000 from 128 on
_PIPELINE = "labelmill.label.spread.pipeline"


def run(loaded: LoadedSpec) -> Receipt:
    """Run the label job of a spec to its end and return its receipt.

    BusyError: another run is on the table. VanishedError: too many pictures are gone, nothing was written.
    FailureBudgetError: too many pictures failed. Whatever ends the run, what it committed stays, and the same command
    goes on from there.
    """
    spec = loaded.spec
    if not isinstance(spec, LabelSpec):
        raise SpecError(f"{loaded.path}: expected kind: label, got {spec.kind!r}")
    note(table=open_store(spec.output).uri)
    with requests_limited(spec.max_requests_per_s), ExitStack() as held:
        with kept_if_it_ends_early(loaded, spec):
            bundles = [Registry(spec.registry).resolve(reference) for reference in spec.references]
            # A damaged bundle, or a store with nothing in it, ends the run before anything is touched.
            for bundle in bundles:
                bundle.verify()
            aside = open_store(open_store(spec.output).address("_labelmill"))
            inventory = open_inventory(spec.images, aside)
            listing = inventory.list()
            usage, lease = held.enter_context(TreeUsage()), held.enter_context(turn_of(spec, aside))
            run = _Run(loaded, spec, bundles, inventory, aside, lease, usage)
        return run.go(listing)


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
        self.spec, self.bundles, self.aside, self.inventory = spec, bundles, aside, inventory
        self.today = datetime.now(UTC).date()
        self.writer = TableWriter(spec.output, [bundle.reference for bundle in bundles])
        self.commits = Commits(self.writer, lease, self.today, max_requests_per_s=spec.max_requests_per_s)
        self.settings = Settings.of(spec)
        receipt = Receipt(
            run_id=self.writer.run_id,
            job=spec.name,
            model=", ".join(bundle.reference for bundle in bundles),
            bundle_digest=", ".join(bundle.digest for bundle in bundles),
            table=self.writer.uri,
            images=inventory.describe,
            engine="",
            precision=spec.precision,
            spec=loaded.source,
        )
        self.budget = Budget(spec, self.writer.uri, receipt.bundle_digest)
        self.account = Account(receipt, usage, aside, pictures=spec.receipt_pictures)

    def go(self, listing: Iterator[pa.RecordBatch]) -> Receipt:
        with self._stop_told():
            self.account.begin()
            return self._label(listing)

    def _label(self, listing: Iterator[pa.RecordBatch]) -> Receipt:
        logger.info("listing %s", self.inventory.describe)
        with connect_ahead(_PIPELINE) as connection:
            with self.account.clock.step("listing and subtracting"):
                todo = self._plan(listing, connection)
                self._put_unread(todo)
            if not todo.num_rows:
                receipt = self._close("nothing to do")
                self.budget.check_idle()
                return receipt
            logger.info("%s pictures to label of %s listed", f"{todo.num_rows:,}", f"{todo.listed:,}")
            with self.account.clock.step("starting Ray"):  # as far as it did not happen while the store was listed
                resources = connection.resources()
            workers = plan_workers(resources, self.spec.engine, todo.num_chunks)
            self.account.alone = resources.local
            with self.account.clock.step("choosing the engine"):
                stage = self._stage(todo, workers)
            self._take_workers(workers, stage)
            logger.info("labelling by %s, %s", workers, self.account.receipt.engine)
            # What is told of a stop is told before Ray ends, for which whoever ends this process may not wait.
            with self._stop_told(), requests_limited(_while_others_work(self.spec)):
                Labelling(self.spec, self.account, self.commits, self.budget).label(stage, workers)
                self.commits.check_kept()
            self.account.usage.sample()  # the workers end with Ray, and what they used with them
        self.commits.compact()
        todo.remove()
        return self._close("complete")

    def _take_workers(self, workers: Workers, stage: Stage) -> None:
        self.account.clock.start_labelling(workers.count, workers.gpus)
        self.account.receipt.engine = ", ".join(dict.fromkeys(stage.engines))
        self._count(workers)

    def _count(self, workers: Workers) -> None:
        receipt = self.account.receipt
        receipt.workers, receipt.num_workers = str(workers), workers.count
        receipt.cores, receipt.gpus = workers.cores, workers.gpus

    def _plan(self, listing: Iterator[pa.RecordBatch], connection: Connection) -> Todo:
        for key in self.aside.keys("runs/"):
            self.aside.delete(key)  # what a run that was killed left; the lease says that it is over
        todo = plan_todo(
            listing,
            LabelTable(self.spec.output),
            [bundle.digest for bundle in self.bundles],
            self.settings,
            models=[bundle.reference for bundle in self.bundles],
            store=self.aside,
            run_id=self.writer.run_id,
            retry=self.spec.retry,
            below=self.inventory.complete_below,
            unseen=lambda: self.inventory.unseen,
            max_vanished_rate=self.spec.max_vanished_rate,
            on_first=connection.begin,
            large_chunks=lambda: not wants_gpus(connection.resources(), self.spec.engine),
        )
        receipt = self.account.receipt
        receipt.pictures_listed, receipt.pictures_done_before = todo.listed, todo.num_done
        receipt.pictures_held, receipt.pictures_vanished = todo.num_held, todo.num_vanished
        if todo.vanished:
            raise VanishedError(str(todo.vanished))
        return todo

    def _put_unread(self, todo: Todo) -> None:
        """What needs no worker is committed before one is asked for."""
        receipt = self.account.receipt
        receipt.pictures_deleted, receipt.pictures_returned = todo.num_gone, todo.num_returned
        receipt.pictures_archived = todo.num_archived
        for count, what in (
            (todo.num_gone, "pictures are no longer in the store"),
            (todo.num_returned, "pictures are there again as they were"),
            (todo.num_archived, "pictures lie in an archive"),
        ):
            if count:
                logger.info("%s %s", f"{count:,}", what)
        files = put_unread(
            todo,
            self.bundles,
            open_store(self.writer.uri),
            settings_digest=self.settings.digest,
            run_id=self.writer.run_id,
            labelled_on=self.today,
        )
        for file in files:
            self.commits.add(file)
        self.commits.now()

    def _stage(self, todo: Todo, workers: Workers) -> Stage:
        spec = self.spec
        exclusive = open_store(spec.output).honours_write_if_absent()
        return Stage(
            bundles=tuple(self.bundles),
            engines=tuple(engine_for(bundle, workers, spec, alone=self.account.alone) for bundle in self.bundles),
            precision=spec.precision,
            todo=todo,
            output=self.writer.uri,
            run_id=self.writer.run_id,
            labelled_on=self.today.isoformat(),
            settings_digest=self.settings.digest,
            scores=spec.scores,
            embeddings=spec.embeddings,
            max_pixels=spec.max_pixels,
            timeout_s=spec.timeout_s,
            batch_size=spec.batch_size or (_BATCH_ON_GPU if workers.gpus else _BATCH_ON_CPU),
            names_are_exclusive=exclusive,
            receipt_pictures=spec.receipt_pictures,
            alone=self.account.alone,
            max_requests_per_s=spec.max_requests_per_s,
            doubts_its_node=True,
        )

    @contextmanager
    def _stop_told(self) -> Iterator[None]:
        """Whatever ends the run before its time, its receipt tells of it."""
        try:
            yield
        except BaseException as exc:
            ends, receipt = how_it_ends(exc), self.account.receipt
            if (receipt.exit_code, receipt.error) != (ends.code, ends.why):
                self._close_stopped(ends)
            raise

    def _close_stopped(self, ends: Ends) -> None:
        came_to_its_end = self.account.receipt.exit_code == 0
        if not came_to_its_end:
            logger.info("the run stopped; what it committed stays, and the same command goes on from there")
        try:
            self._close(self.account.receipt.outcome if came_to_its_end else "stopped", ends)
        except StorageError as exc:  # what stopped the run may well be the place where its receipt goes
            logger.warning("the receipt of this run was not written: %s", exc)

    def _close(self, outcome: str, ends: Ends = Ends(0, "")) -> Receipt:  # noqa: B008 - a value
        receipt, most = self.account.receipt, self.account.clock.most_workers
        if not receipt.gpus and most > receipt.num_workers > 0:  # the cluster has grown
            self._count(Workers(most))
        receipt.commits, receipt.files = self.commits.number, self.commits.files
        receipt.exit_code, receipt.error = ends.code, ends.why
        try:
            return self.account.close(outcome, self.spec.prices)
        finally:
            note(**receipt.facts())


def _while_others_work(spec: LabelSpec) -> float | None:
    return None if spec.max_requests_per_s is None else part_of_driver(spec.max_requests_per_s)
