"""A receipt is there from the beginning, says how far its run is, and is closed, again where an error follows."""

import json
from pathlib import Path
from typing import Any

from label.receipt.test_page import made
from label.work.test_samples import frozen
from labelmill.label.receipt.account import Account
from labelmill.label.receipt.receipt import Receipt
from labelmill.label.receipt.usage import TreeUsage
from labelmill.label.work.samples import Sampler
from labelmill.storage import open_store

FIELDS = {"model": "tiny@1", "bundle_digest": "d", "images": "./inbox", "engine": "torch", "precision": "auto"}


def account(folder: Path, run_id: str, usage: TreeUsage) -> Account:
    receipt = Receipt(run_id=run_id, job="nightly", table=str(folder), **FIELDS)
    return Account(receipt, usage, open_store(str(folder / "_labelmill")), pictures=2)


def kept(folder: Path, run_id: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"_labelmill/receipts/{run_id}.json").read_text())
    return found


def test_a_run_that_is_killed_leaves_how_far_it_was_and_the_next_one_says_so(tmp_path: Path) -> None:
    with TreeUsage() as usage:
        first = account(tmp_path, "000000002-x", usage)
        first.begin()
        begun = kept(tmp_path, "000000002-x")
        assert (begun["outcome"], begun["exit_code"], begun["page"]) == ("running", None, "")
        first.add(made(0, Sampler(2, frozen)))
        first.keep()
        assert kept(tmp_path, "000000002-x")["pictures_labelled"] == 64  # and it is killed here

        second = account(tmp_path, "000000004-x", usage)
        second.begin()
        ended = kept(tmp_path, "000000002-x")
        assert (ended["outcome"], ended["exit_code"], ended["pictures_labelled"]) == ("killed", 137, 64)
        assert kept(tmp_path, "000000004-x")["outcome"] == "running"
        second.receipt.exit_code = 0
        second.close("complete", None)
    assert (kept(tmp_path, "000000004-x")["outcome"], kept(tmp_path, "000000002-x")["outcome"]) == (
        "complete",
        "killed",
    )
    assert kept(tmp_path, "000000004-x")["page"].endswith("000000004-x.html")


def test_what_was_asked_of_the_store_counts_once_however_often_a_receipt_is_closed(tmp_path: Path) -> None:
    with TreeUsage() as usage:
        run = account(tmp_path, "000000002-x", usage)
        run.begin()
        open_store(str(tmp_path)).write("some", b"x" * 1_000_000)
        for _ in range(3):
            run.close("stopped", None)
    assert 1_000_000 <= kept(tmp_path, "000000002-x")["traffic"]["written_bytes"] < 1_200_000
