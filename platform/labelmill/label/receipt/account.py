"""What a run takes, gathered while it goes on and told when it is over."""

from __future__ import annotations

import logging

from labelmill.errors import StorageError
from labelmill.label.receipt.clock import Clock
from labelmill.label.receipt.page import receipt_html
from labelmill.label.receipt.receipt import Receipt
from labelmill.label.receipt.sheet import Sheet
from labelmill.label.receipt.usage import TreeUsage, WorkersUsage
from labelmill.label.work.chunk import Chunk
from labelmill.spec import Prices
from labelmill.storage import Store, traffic
from labelmill.table.receipts import close_killed, keep_receipt

__all__ = ["Account"]

logger = logging.getLogger(__name__)


class Account:
    """The receipt of a run, and what it is made of. `alone`: all its processes are below this one. The receipt lies
    below the table's `_labelmill` folder, `aside`."""

    def __init__(self, receipt: Receipt, usage: TreeUsage, aside: Store, *, pictures: int) -> None:
        self.receipt, self.usage, self._aside = receipt, usage, aside
        self.clock, self._sheet, self._elsewhere = Clock(), Sheet(pictures), WorkersUsage()
        self._asked_before = traffic()
        self.alone = True

    def add(self, chunk: Chunk) -> None:
        self.clock.add(chunk)
        self.receipt.add(chunk)
        self._sheet.add(chunk.samples, self.receipt.labels)
        if not self.alone:
            self._elsewhere.add(chunk)

    def begin(self) -> None:
        """Say that the run is at work: who finds this when the run no longer is knows that it was killed."""
        close_killed(self._aside)
        keep_receipt(self._aside, self.receipt.run_id, self.receipt.to_json())

    def keep(self) -> None:
        """How far it is, for the case that it is killed."""
        self.receipt.wall_s = round(self.clock.elapsed_s, 2)
        try:
            keep_receipt(self._aside, self.receipt.run_id, self.receipt.to_json())
        except StorageError as exc:
            logger.warning("the receipt of this run does not say how far it is: %s", exc)

    def close(self, outcome: str, prices: Prices | None) -> Receipt:
        """Write the receipt. A second time where an error follows the end."""
        self.usage.sample()
        receipt, asked = self.receipt, traffic()
        receipt.outcome, receipt.failures = outcome, self._sheet.reasons()
        receipt.traffic += asked - self._asked_before
        self._asked_before = asked
        receipt.close(
            self.clock,
            cpu_s=self.usage.cpu_s + self._elsewhere.cpu_s,
            peak_memory_bytes=self.usage.peak_memory_bytes + self._elsewhere.peak_memory_bytes,
            prices=prices,
        )
        keep_receipt(self._aside, receipt.run_id, receipt.to_json(), receipt_html(receipt, self._sheet))
        return receipt
