"""The receipts of a table's runs, kept beside it: `_labelmill/receipts/<run>.json`, and `.html` to look at."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from labelmill.storage import Store, open_store

__all__ = ["keep_receipt", "past_receipts"]

_FOLDER = "receipts"


def keep_receipt(aside: Store, run_id: str, account: str, page: str) -> None:
    """Keep a run's account, JSON, and its page, HTML. `aside` is the table's `_labelmill` folder."""
    aside.write(f"{_FOLDER}/{run_id}.json", account.encode())
    aside.write(f"{_FOLDER}/{run_id}.html", page.encode())


def past_receipts(table: str) -> Iterator[dict[str, Any]]:
    """The receipts of the runs on a table, newest first and each as it is asked for; none where none ever ran.

    One that is damaged, or a copy under another name, is left out: it is an account, not the table.
    """
    aside = open_store(open_store(table).address("_labelmill"))
    names = sorted((key for key in aside.keys(f"{_FOLDER}/") if key.endswith(".json")), reverse=True)
    for name in names:
        with suppress(ValueError):
            receipt = json.loads(aside.read(name))
            if isinstance(receipt, dict) and name == f"{_FOLDER}/{receipt.get('run_id')}.json":
                yield receipt
