"""Writing a label table: one run at a time, in atomic commits, and fenced.

Only the driver commits, and only what a worker returned. The fence is Delta's application transaction: every commit of
ours carries the next number of one application id, so of two writers on the same snapshot one wins, and the other
learns that it was replaced.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from typing import Any

from deltalake import CommitProperties, DeltaTable, Schema, Transaction
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction

from labelmill.errors import FencedError, TableError
from labelmill.storage import delta_options, open_store
from labelmill.table.data_file import STATISTICS, DataFile, lost_files
from labelmill.table.row import PARTITION, SCHEMA
from labelmill.table.snapshot import Snapshot, one_line
from labelmill.table.table import LABELLED_BY

__all__ = ["TableWriter"]

logger = logging.getLogger(__name__)

_APPLICATION = "labelmill"
_DELTA_SCHEMA = Schema.from_arrow(SCHEMA)
_COMPACT_FROM_FILES = 16
_TARGET_FILE_BYTES = 256 * 2**20


class TableWriter:
    """The one writer of a label table, fenced. `number` counts the writers and their commits, across all runs.

    `models` are what a run resolved its models to (name@version): from its first commit on, which is made here and
    also by a run with nothing to do, the current view shows their rows. Of two versions of one model it is the first.
    """

    def __init__(self, uri: str, models: Sequence[str] = ()) -> None:
        self._store = open_store(uri)
        self.uri = self._store.uri
        self._options = delta_options(self.uri)
        try:
            self._delta = self._open_or_create()
            self.number = self._delta.transaction_version(_APPLICATION) or 0
            self.run_id = f"{self.number + 1:09d}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}"
            self._begin(models)  # from here on, whoever opened the table before us can no longer commit
        except (DeltaError, OSError) as exc:
            raise TableError(f"the label table at {self.uri} cannot be written: {one_line(exc)}") from exc

    def _open_or_create(self) -> DeltaTable:
        if not DeltaTable.is_deltatable(self.uri, storage_options=self._options):
            DeltaTable.create(
                self.uri,
                schema=_DELTA_SCHEMA,
                mode="ignore",
                partition_by=[PARTITION],
                storage_options=self._options,
                name="labels",
                configuration={"delta.dataSkippingStatsColumns": ",".join(STATISTICS)},
            )
        return Snapshot(self.uri).delta  # says so when it is some other Delta table

    def _begin(self, models: Sequence[str]) -> None:
        used = {
            LABELLED_BY + name: version for name, _, version in (model.partition("@") for model in reversed(models))
        }
        known = self._delta.metadata().configuration
        if all(known.get(name) == version for name, version in used.items()):
            self._commit(self._write([]))
        else:
            self._commit(
                lambda properties: self._delta.alter.set_table_properties(
                    used, raise_if_not_exists=False, commit_properties=properties
                )
            )

    def still_there(self, files: Sequence[DataFile]) -> list[DataFile]:
        """Those that lie in the folder as they were put: a reader fails at one that is committed and is not there."""
        lost = set(lost_files(self._store, {file.path: file.size_bytes for file in files}))
        return [file for file in files if file.path not in lost]

    def check_kept(self) -> None:
        """TableError: a file of this run that the table consists of is gone."""
        now = Snapshot(self.uri)
        now.check_there([file for file in now.files if self.run_id in file.path])

    def _took_new_keys(self) -> bool:
        """deltalake keeps the keys with which a table was opened. Those of our own door are exchanged when refused."""
        if self._options is None:
            return False
        any(open_store(self.uri).keys("_delta_log"))
        options = delta_options(self.uri)
        if options == self._options:
            return False
        self._options, self._delta = options, DeltaTable(self.uri, storage_options=options)
        return True

    def commit(self, files: Sequence[DataFile]) -> None:
        """Make `files` part of the table, all or none. FencedError: another run took the table over."""
        try:
            self._commit_with_new_keys(self._write([_added(file) for file in files]))
        except (DeltaError, OSError) as exc:
            raise TableError(
                f"{len(files)} finished files could not be committed to {self.uri}: {one_line(exc)}. "
                "What was committed before stays. Mend the cause and run the same command again."
            ) from exc

    def _write(self, actions: Sequence[AddAction]) -> Callable[[CommitProperties], None]:
        return lambda properties: self._delta.create_write_transaction(
            list(actions), "append", schema=_DELTA_SCHEMA, partition_by=[PARTITION], commit_properties=properties
        )

    def _commit_with_new_keys(self, change: Callable[[CommitProperties], None]) -> None:
        try:
            self._commit(change)
        except (DeltaError, OSError) as exc:
            if not self._took_new_keys():
                raise
            if self._landed(exc):
                self._advance()
            else:
                self._commit(change)

    def _commit(self, change: Callable[[CommitProperties], None]) -> None:
        if (self._delta.transaction_version(_APPLICATION) or 0) != self.number:
            raise self._fenced()
        try:
            change(self._properties())
        except (DeltaError, OSError) as exc:
            if not self._landed(exc):
                raise
        self._advance()

    def _landed(self, exc: Exception) -> bool:
        """After a failure whose outcome is unknown: did our commit get in? FencedError: somebody else's did."""
        self._delta.update_incremental()
        number = self._delta.transaction_version(_APPLICATION) or 0
        if number == self.number:
            return False
        newest = next((entry for entry in self._delta.history(20) if "labelmill_number" in entry), {})
        if newest.get("labelmill_number") == str(self.number + 1) and newest.get("run_id") == self.run_id:
            return True
        raise self._fenced() from exc

    def _advance(self) -> None:
        self._delta.update_incremental()
        self.number += 1
        if self._delta.transaction_version(_APPLICATION) != self.number:
            raise self._fenced()

    def _properties(self) -> CommitProperties:
        number = self.number + 1
        return CommitProperties(
            app_transactions=[Transaction(_APPLICATION, number)],
            custom_metadata={"run_id": self.run_id, "labelmill_number": str(number)},
        )

    def _fenced(self) -> FencedError:
        return FencedError(
            f"another run took over the label table at {self.uri}. What this run ({self.run_id}) committed stays; "
            "nothing more of it will be. Run the same command again when the other has ended."
        )

    def forget_gone(self) -> None:
        """Take the files that are gone from the folder out of the table; their rows are then no longer in it.

        By Delta's own repair: whoever removes a file in which rows are deleted must name their deletion vector.
        """
        try:
            if self._delta.repair(dry_run=True)["files_removed"]:
                self._commit(self._repair)
        except (DeltaError, OSError) as exc:
            raise TableError(f"the label table at {self.uri} could not be repaired: {one_line(exc)}.") from exc

    def _repair(self, properties: CommitProperties) -> None:
        self._delta.repair(commit_properties=properties)

    def compact(self, day: date, *, from_files: int = _COMPACT_FROM_FILES) -> int:
        """Merge the small files of one day's partition, if it has `from_files`; returns how many fewer there are.

        A merge carries no number of ours, since Delta's optimize takes none; it needs none, as it changes no row.
        """
        self._took_new_keys()
        self._delta.update_incremental()
        if self._delta.transaction_version(_APPLICATION) != self.number:
            raise self._fenced()
        here = f"{PARTITION}={day.isoformat()}/"
        if sum(here in uri for uri in self._delta.file_uris()) < from_files:
            return 0
        try:
            done: dict[str, Any] = self._delta.optimize.compact(
                partition_filters=[(PARTITION, "=", day.isoformat())],
                target_size=_TARGET_FILE_BYTES,
                commit_properties=CommitProperties(custom_metadata={"run_id": self.run_id}),
            )
        except (DeltaError, OSError) as exc:
            # Every row is committed already; small files cost readers time, not truth.
            logger.warning("the small files of %s were not merged: %s", day, one_line(exc))
            done = {}
        self._delta.update_incremental()
        return int(done.get("numFilesRemoved", 0)) - int(done.get("numFilesAdded", 0))


def _added(file: DataFile) -> AddAction:
    now_ms = int(time.time() * 1000)
    return AddAction(file.path, file.size_bytes, {PARTITION: file.labelled_on}, now_ms, True, file.statistics)
