"""The receipts of a table's runs, kept beside it: `_labelmill/receipts/<run>.json`, and `.html` to look at.

A run that holds the table writes its receipt when it begins, says now and then how far it is, and closes it in the
end. So one that still says `running` when another run holds the table is of a run that was killed. A run that ended
before it held the table has a receipt with the number 0, which comes after all others here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from labelmill.storage import Store, open_store

__all__ = ["KILLED", "KILLED_CODE", "RUNNING", "close_killed", "keep_receipt", "past_receipts", "receipt_keys"]

RUNNING, KILLED = "running", "killed"
KILLED_CODE = 137  # what a shell says of a process that got SIGKILL

_FOLDER = "receipts"
_WITHOUT_A_WORD = "it was killed, or lost the store, without a word"


def keep_receipt(aside: Store, run_id: str, account: str, page: str | None = None) -> None:
    """Keep a run's account, JSON, and its page, HTML. `aside` is the table's `_labelmill` folder."""
    aside.write(f"{_FOLDER}/{run_id}.json", account.encode())
    if page is not None:
        aside.write(f"{_FOLDER}/{run_id}.html", page.encode())


def close_killed(aside: Store) -> None:
    """Say in their receipts that the runs before were killed. For who holds the table and has no receipt yet: what
    still says `running` is then not true, and stands before everything that was closed."""
    for name in receipt_keys(aside):
        receipt = _read(aside, name)
        if receipt is not None and receipt.get("outcome") != RUNNING:
            return
        if receipt is not None:
            end = {"outcome": KILLED, "exit_code": KILLED_CODE, "error": _WITHOUT_A_WORD}
            aside.write(name, json.dumps(receipt | end, indent=2).encode())


def past_receipts(table: str) -> Iterator[dict[str, Any]]:
    """The receipts of the runs on a table, newest first and each as it is asked for; none where none ever ran.

    One that is damaged, or a copy under another name, is left out: it is an account, not the table.
    """
    aside = open_store(open_store(table).address("_labelmill"))
    for name in receipt_keys(aside):
        receipt = _read(aside, name)
        if receipt is not None:
            yield receipt


def receipt_keys(aside: Store) -> list[str]:
    """Newest first."""
    return sorted((key for key in aside.keys(f"{_FOLDER}/") if key.endswith(".json")), reverse=True)


def _read(aside: Store, name: str) -> dict[str, Any] | None:
    with suppress(ValueError):
        receipt = json.loads(aside.read(name))
        if isinstance(receipt, dict) and name == f"{_FOLDER}/{receipt.get('run_id')}.json":
            return receipt
    return None
