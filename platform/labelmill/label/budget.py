"""How many pictures of a night may fail."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from itertools import dropwhile, islice, takewhile
from typing import Any

from labelmill.errors import FailureBudgetError
from labelmill.spec import LabelSpec
from labelmill.table.receipts import KILLED, RUNNING, past_receipts
from labelmill.table.row import FINAL

__all__ = ["Budget"]

_TRIED, _TRIED_IF_ALL_FAIL = 200, 20  # before it is judged: a few damaged pictures may come first
_RUNS = 20  # of all jobs on the table, that are looked back to


class Budget:
    """What `max_failure_rate` allows the runs of one job on a table.

    A night may take several runs. One that stopped before the end of its list did not get over its failures: they count
    in the next, those aside that are tried again there. What failed in runs that came to the end of theirs does not.
    """

    def __init__(self, spec: LabelSpec, table: str, bundle_digest: str) -> None:
        self._spec, self._table, self._bundle_digest = spec, table, bundle_digest
        self._before: Counter[str] | None = None

    def check(self, statuses: Mapping[str, int]) -> None:
        """FailureBudgetError: too many failed. `statuses` has how many pictures of this run ended as what."""
        if self._before is None:
            self._before = self._of_stopped_runs(after_idle=False)
        also = ", in runs that stopped included" if self._before else ""
        self._check(self._before + Counter(statuses), also, "The run stopped and kept what it committed")

    def check_idle(self) -> None:
        """The same for a run with nothing to do: that of before decides, whose retry it may be."""
        statuses = self._of_stopped_runs(after_idle=True)
        self._check(statuses, ", in runs that stopped", "No picture is left that would be tried again")

    def _of_stopped_runs(self, *, after_idle: bool) -> Counter[str]:
        """What pictures ended as in the runs since the last that came to its end, which one with nothing to do does."""
        final = set(FINAL) - set(self._spec.retry)
        receipts = islice(past_receipts(self._table), _RUNS)
        runs: Iterator[dict[str, Any]] = (
            receipt
            for receipt in receipts
            if receipt.get("job") == self._spec.name and receipt.get("outcome") not in (RUNNING, KILLED)
        )
        if after_idle:
            runs = dropwhile(self._ended_as("nothing to do"), runs)
        found: Counter[str] = Counter()
        for receipt in takewhile(self._ended_as("stopped"), runs):
            found.update({status: count for status, count in receipt.get("statuses", {}).items() if status in final})
        return found

    def _ended_as(self, outcome: str) -> Callable[[dict[str, Any]], bool]:
        wanted = outcome, self._bundle_digest  # with another model it is another night
        return lambda receipt: (receipt.get("outcome"), receipt.get("bundle_digest")) == wanted

    def _check(self, statuses: Counter[str], where: str, now: str) -> None:
        tried, limit = statuses.total() - statuses["archived"], self._spec.max_failure_rate
        failed = tried - statuses["ok"]
        if tried < (_TRIED_IF_ALL_FAIL if failed == tried else _TRIED) or failed <= limit * tried:
            return
        no_failure = ("ok", "archived")
        failures = ", ".join(f"{status} {count:,}" for status, count in statuses.items() if status not in no_failure)
        raise FailureBudgetError(
            f"{failed:,} of the {tried:,} pictures tried have no labels ({failed / tried:.1%}{where}), "
            f"max_failure_rate allows {limit:.1%}: {failures}. "
            f"{now}. `labelmill labels {self._table}` shows the reasons; "
            "mend the store or raise max_failure_rate, and run the same command again."
        )
