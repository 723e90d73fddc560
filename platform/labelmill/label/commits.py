"""When finished files become part of the table: at intervals that grow with the run, each time all or none."""

from __future__ import annotations

import logging
import time
from datetime import date

from labelmill.errors import FencedError, StorageError, TableError
from labelmill.storage import part_of_driver
from labelmill.storage.lease import Lease
from labelmill.table.data_file import DataFile
from labelmill.table.writer import TableWriter

__all__ = ["Commits"]

logger = logging.getLogger(__name__)

_FIRST_S, _LAST_S = 5.0, 60.0
_REQUESTS = 15  # that a commit costs, most of them deltalake's
# A table of a few thousand files opens in well under a second; a run of days writes many more.
_COMPACT_EVERY_FILES = 1024


class Commits:
    """The finished files of one run, which alone writes the table. FencedError: another run took it over."""

    def __init__(
        self, writer: TableWriter, lease: Lease, today: date, *, max_requests_per_s: float | None = None
    ) -> None:
        self._writer, self._lease, self._today = writer, lease, today
        self._waiting: list[DataFile] = []
        self._first_s = _FIRST_S
        if max_requests_per_s is not None:  # as often as the part of a run that is the driver's allows
            self._first_s = max(_FIRST_S, _REQUESTS / (0.6 * part_of_driver(max_requests_per_s)))
        self._small_files = 0
        self._began = self._last = time.monotonic()
        self.number = self.files = 0

    def begin(self) -> None:
        """The intervals count from here."""
        self._began = self._last = time.monotonic()

    def add(self, file: DataFile) -> None:
        self._waiting.append(file)

    def when_due(self) -> bool:
        """Commit what is finished, if the last time is long enough ago. Whether it was."""
        now = time.monotonic()
        if self._waiting and now - self._last >= min(_LAST_S, max(self._first_s, (now - self._began) / 10)):
            self.now()
            self._last = time.monotonic()
            return True
        return False

    def now(self) -> None:
        """Commit what is finished. TableError: it could not be, and nothing of it is in the table; or some of it was
        deleted meanwhile, and the rest is in the table."""
        if not self._waiting:
            return
        self._lease.check()
        there = self._writer.still_there(self._waiting)
        lost = len(self._waiting) - len(there)
        self._writer.commit(there)
        self._waiting = []
        self.number += 1
        self.files += len(there)
        self._small_files += len(there)
        if lost:
            raise TableError(
                f"{lost} finished files of this run are gone from {self._writer.uri}, where they waited for their "
                "commit: another program deletes what the table does not refer to yet (a VACUUM of a few hours?). Keep "
                "it away while a run is on the table, and run the same command again: it labels what is missing."
            )
        if self._small_files >= _COMPACT_EVERY_FILES:
            self.compact()

    def check_kept(self) -> None:
        """TableError: a file that this run committed is gone; who deleted it had looked before it was committed."""
        self._writer.check_kept()

    def keep(self) -> None:
        """On the way out of a stopped run: commit what is finished. What stopped the run is what its user must hear of,
        unless that is another run, of which the rest follows."""
        try:
            self.now()
        except FencedError:
            raise
        except (TableError, StorageError) as exc:
            logger.warning(
                "%d finished files were not committed, the next run labels them: %s", len(self._waiting), exc
            )

    def compact(self) -> None:
        """Merge the day's small files, if they are many."""
        self._writer.compact(self._today)
        self._small_files = 0
