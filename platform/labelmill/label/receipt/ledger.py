"""The receipts of a table's runs, kept beside it: `_labelmill/receipts/<run>.json`, and `.html` to look at."""

from __future__ import annotations

import json
from typing import Any

from labelmill.label.receipt.page import receipt_html
from labelmill.label.receipt.receipt import Receipt
from labelmill.label.work.samples import Sheet
from labelmill.storage import Store, open_store

__all__ = ["last_receipts", "write_receipt"]

_FOLDER = "receipts"


def write_receipt(aside: Store, receipt: Receipt, sheet: Sheet) -> None:
    """Write both forms. `aside` is the table's `_labelmill` folder."""
    receipt.failures = [
        {"status": sample.status, "uri": sample.uri, "error": sample.error or ""}
        for samples in sheet.failures.values()
        for sample in samples
    ]
    aside.write(f"{_FOLDER}/{receipt.run_id}.json", receipt.to_json().encode())
    aside.write(f"{_FOLDER}/{receipt.run_id}.html", receipt_html(receipt, sheet).encode())


def last_receipts(table: str, count: int) -> list[dict[str, Any]]:
    """The receipts of the last `count` runs on a table, newest first, as they were written; none where none ever ran.

    One that is damaged is left out: it is an account, not the table.
    """
    aside = open_store(open_store(table).address("_labelmill"))
    names = sorted((key for key in aside.keys(f"{_FOLDER}/") if key.endswith(".json")), reverse=True)
    found = []
    for name in names[:count]:
        try:
            found.append(json.loads(aside.read(name)))
        except ValueError:
            continue
    return [receipt for receipt in found if isinstance(receipt, dict) and "run_id" in receipt]
