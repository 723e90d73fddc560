"""A label job: make the label table agree with the image store, for one model.

List the store, subtract what the table holds, label the rest, commit as it goes. The first run, the nightly one, the
one after a crash and the backfill with a new model are the same: the table itself is the checkpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

import pyarrow as pa

from labelmill.cluster import Connection, connect_ahead
from labelmill.errors import SpecError, StorageError, VanishedError
from labelmill.label.budget import Budget
from labelmill.label.commits import Commits
from labelmill.label.inventory.inventory import Inventory, open_inventory
from labelmill.label.labelling import Labelling
from labelmill.label.receipt.account import Account
from labelmill.label.receipt.receipt import Receipt
from labelmill.label.receipt.usage import TreeUsage
from labelmill.label.spread.workers import Workers, plan_workers, wants_gpus
from labelmill.label.todo.plan import plan_todo
from labelmill.label.todo.settings import Settings
from labelmill.label.todo.todo import Todo
from labelmill.label.todo.unread import put_unread
from labelmill.label.work.stage import Stage
from labelmill.model.bundle import Bundle
from labelmill.model.engines import choose_engine
from labelmill.model.registry import Registry
from labelmill.spec import LabelSpec, LoadedSpec
from labelmill.storage import Store, open_store, part_of_driver, requests_limited
from labelmill.storage.lease import Lease, hold_lease
from labelmill.table.table import LabelTable
from labelmill.table.writer import TableWriter

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
    with requests_limited(spec.max_requests_per_s):
        return _run(loaded, spec)


def _run(loaded: LoadedSpec, spec: LabelSpec) -> Receipt:
    bundles = [Registry(spec.registry).resolve(reference) for reference in spec.references]
    # A damaged bundle, or a store with nothing in it, ends the run before anything is touched.
    for bundle in bundles:
        bundle.verify()
    aside = open_store(open_store(spec.output).address("_labelmill"))
    inventory = open_inventory(spec.images, aside)
    listing = inventory.list()
    with TreeUsage() as usage, hold_lease(aside, spec.name) as lease:
        return _Run(loaded, spec, bundles, inventory, aside, lease, usage).go(listing)


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
        self.account = Account(receipt, usage, pictures=spec.receipt_pictures)

    def go(self, listing: Iterator[pa.RecordBatch]) -> Receipt:
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
            try:
                with requests_limited(_while_others_work(self.spec)):
                    Labelling(self.spec, self.account, self.commits, self.budget).label(stage, workers)
                self.commits.check_kept()
            except BaseException:
                self._close_stopped()
                raise
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
        if todo.vanished:
            raise VanishedError(str(todo.vanished))
        self.account.receipt.pictures_listed = todo.listed
        self.account.receipt.pictures_done_before = todo.num_done
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
            engines=tuple(self._engine(bundle, workers) for bundle in self.bundles),
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

    def _engine(self, bundle: Bundle, workers: Workers) -> Literal["openvino", "torch"]:
        """Chosen here and once. Workers that choose OpenVINO then find the network converted, and one that it cannot
        take is told of before they start."""
        if workers.gpus or self.spec.engine == "torch":
            if self.account.alone:
                bundle.weights_path()  # so that a cache which cannot keep them is told of here
            return "torch"
        if self.spec.engine == "auto" and choose_engine(bundle, self.spec.precision) == "torch":
            return "torch"
        # A run with nothing to do needs none of it.
        from labelmill.model.engines.graphs import converted_graph, takes_bfloat16

        graph = converted_graph(bundle, embeddings=self.spec.embeddings)
        if self.spec.precision == "bfloat16":
            takes_bfloat16(bundle, graph, "bfloat16")  # so that it is said here, and not only in the workers' logs
        return "openvino"

    def _close_stopped(self) -> None:
        logger.info("the run stopped; what it committed stays, and the same command goes on from there")
        try:
            self._close("stopped")
        except StorageError as exc:  # what stopped the run may well be the place where its receipt goes
            logger.warning("the receipt of this run was not written: %s", exc)

    def _close(self, outcome: str) -> Receipt:
        receipt, most = self.account.receipt, self.account.clock.most_workers
        if not receipt.gpus and most > receipt.num_workers > 0:  # the cluster has grown
            self._count(Workers(most))
        receipt.commits, receipt.files = self.commits.number, self.commits.files
        return self.account.close(outcome, self.aside, self.spec.prices)


def _while_others_work(spec: LabelSpec) -> float | None:
    return None if spec.max_requests_per_s is None else part_of_driver(spec.max_requests_per_s)
