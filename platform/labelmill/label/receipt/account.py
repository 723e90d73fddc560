"""What a run takes, gathered while it goes on and told when it is over."""

from __future__ import annotations

from labelmill.label.receipt.clock import Clock
from labelmill.label.receipt.page import receipt_html
from labelmill.label.receipt.receipt import Receipt
from labelmill.label.receipt.sheet import Sheet
from labelmill.label.receipt.usage import TreeUsage, WorkersUsage
from labelmill.label.work.chunk import Chunk
from labelmill.spec import Prices
from labelmill.storage import Store, traffic
from labelmill.table.receipts import keep_receipt

__all__ = ["Account"]


class Account:
    """The receipt of a run, and what it is made of. `alone`: all its processes are below this one."""

    def __init__(self, receipt: Receipt, usage: TreeUsage, *, pictures: int) -> None:
        self.receipt, self.usage = receipt, usage
        self.clock, self._sheet, self._elsewhere = Clock(), Sheet(pictures), WorkersUsage()
        self._asked_before = traffic()
        self.alone = True

    def add(self, chunk: Chunk) -> None:
        self.clock.add(chunk)
        self.receipt.add(chunk)
        self._sheet.add(chunk.samples, self.receipt.labels)
        if not self.alone:
            self._elsewhere.add(chunk)

    def close(self, outcome: str, aside: Store, prices: Prices | None) -> Receipt:
        """Write the receipt below the table's `_labelmill` folder, `aside`."""
        self.usage.sample()
        receipt = self.receipt
        receipt.outcome, receipt.failures = outcome, self._sheet.reasons()
        receipt.traffic += traffic() - self._asked_before
        receipt.close(
            self.clock,
            cpu_s=self.usage.cpu_s + self._elsewhere.cpu_s,
            peak_memory_bytes=self.usage.peak_memory_bytes + self._elsewhere.peak_memory_bytes,
            prices=prices,
        )
        keep_receipt(aside, receipt.run_id, receipt.to_json(), receipt_html(receipt, self._sheet))
        return receipt
