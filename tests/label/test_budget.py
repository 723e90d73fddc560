"""The failures of a night count over all its runs."""

import json
from types import SimpleNamespace

import pytest

from labelmill.errors import FailureBudgetError
from labelmill.label.budget import Budget
from labelmill.storage import open_store
from labelmill.table.receipts import keep_receipt


@pytest.fixture
def budget(tmp_path):
    """One for a table whose runs, oldest first, ended with these receipts."""

    def after(*receipts, retry=(), limit=0.05):
        aside = open_store(str(tmp_path / "labels" / "_labelmill"))
        for number, receipt in enumerate(receipts):
            common = {"run_id": f"{number:09d}-x", "job": "nightly", "bundle_digest": "d"}
            keep_receipt(aside, common["run_id"], json.dumps(common | receipt), "")
        spec = SimpleNamespace(name="nightly", max_failure_rate=limit, retry=list(retry))
        return Budget(spec, str(tmp_path / "labels"), "d")

    return after


STOPPED = {"outcome": "stopped", "statuses": {"ok": 240, "unsupported": 60}}
COMPLETE = {"outcome": "complete", "statuses": {"ok": 1000}}
IDLE = {"outcome": "nothing to do", "statuses": {}}


@pytest.mark.parametrize(
    ("statuses", "enough"),
    [
        ({"ok": 190, "unreadable": 10}, True),
        ({"ok": 189, "unreadable": 11}, False),
        ({"ok": 100, "unreadable": 99}, True),  # a few damaged ones may come first
        ({"missing": 19}, True),
        ({"missing": 20}, False),
        ({"missing": 150}, False),
    ],
)
def test_a_run_stops_when_too_many_failed(budget, statuses, enough):
    if enough:
        budget().check(statuses)
    else:
        with pytest.raises(FailureBudgetError, match=r"max_failure_rate allows 5.0%: (missing|unreadable)"):
            budget().check(statuses)


def test_all_may_fail_where_the_spec_says_so(budget):
    budget(limit=1.0).check({"missing": 500})


@pytest.mark.parametrize(
    ("runs", "red"),
    [
        ([STOPPED], True),
        ([STOPPED, IDLE], True),  # and so on, until a run labels something
        ([STOPPED, IDLE, IDLE], True),
        ([STOPPED, COMPLETE], False),
        ([COMPLETE, STOPPED], True),
        ([COMPLETE, IDLE], False),
        ([STOPPED | {"job": "another"}], False),
        ([STOPPED, COMPLETE | {"job": "another"}], True),
        ([STOPPED, COMPLETE | {"bundle_digest": "of another model"}], False),
        ([STOPPED | {"bundle_digest": "of the model before"}], False),
        ([{"outcome": "stopped", "statuses": {"ok": 240, "missing": 60}}], False),  # they were tried again since
        ([], False),
    ],
)
def test_a_run_with_nothing_to_do_ends_as_the_one_before_it(budget, runs, red):
    if red:
        with pytest.raises(FailureBudgetError, match=r"60 of the 300 .*No picture is left"):
            budget(*runs).check_idle()
    else:
        budget(*runs).check_idle()


def test_a_run_counts_what_failed_in_those_that_stopped_before_it(budget):
    with pytest.raises(FailureBudgetError, match=r"60 of the 400 .*in runs that stopped included"):
        budget(STOPPED).check({"ok": 100})
    budget(STOPPED, IDLE).check({"ok": 100})
    budget(STOPPED, retry=["unsupported"]).check({"ok": 100})
