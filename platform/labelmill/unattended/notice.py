"""Who hears how a job ended: the webhook that the spec's `notify` names, whatever ended it."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from labelmill.ending import how_it_ends
from labelmill.errors import BusyError
from labelmill.spec import Spec
from labelmill.storage.lease import Tenure
from labelmill.unattended.webhook import post

__all__ = ["note", "tell_of_vanished", "told_of_end"]

logger = logging.getLogger(__name__)

_WITHIN_S = 30.0
_WITHIN_S_AFTER_A_SIGNAL = 5.0  # who sent it waits, and not for long
_WITHIN_S_BEFORE_A_RUN = 10.0
_MOST_CHARACTERS = 1500
_KILLED = 137
_PLACES = {"table": "table", "training run": "run", "evaluation": "output"}

_noted: dict[str, Any] = {}


def note(**facts: Any) -> None:
    """What a job tells of itself; whoever hears of its end hears of this."""
    _noted.update(facts)


@contextmanager
def told_of_end(spec: Spec) -> Iterator[None]:
    """Around a job: whoever `notify` names is told how it ended. Nothing that comes of that changes how it ends."""
    _noted.clear()
    began = time.monotonic()
    try:
        yield
    except BaseException as exc:
        ends = how_it_ends(exc)
        outcome = "skipped" if isinstance(exc, BusyError) and not ends.by_signal else "stopped"
        within_s = _WITHIN_S_AFTER_A_SIGNAL if ends.by_signal else _WITHIN_S
        _tell(spec, began, {"outcome": outcome, "exit_code": ends.code, "error": ends.why}, within_s)
        raise
    _tell(spec, began, {"outcome": "complete", "exit_code": 0} | _noted, _WITHIN_S)


def tell_of_vanished(spec: Spec, vanished: Tenure, of: str) -> bool:
    """Tell of a run that was killed: it could not do so itself. False: it has to be tried again."""
    holder = vanished.holder
    who = str(holder) if holder else "a run"
    since = f", which began at {holder.since}" if holder and holder.since else ""
    seen = vanished.last_seen.isoformat(timespec="seconds") if vanished.last_seen else None
    error = (
        f"{who}{since}, vanished{f' after {seen}' if seen else ''}: it was killed, or lost the store, without a word. "
        "What it finished stays; this run goes on from there"
    )
    logger.warning("%s", error)
    if spec.kind == "serve" or spec.notify is None:
        return True
    message = {
        "job": holder.job if holder else spec.name,
        "kind": spec.kind,
        "outcome": "killed",
        "exit_code": _KILLED,
        "error": error,
        "started_at": holder.since if holder else None,
        "last_seen_at": seen,
        _PLACES[of]: vanished.row.store.uri.removesuffix("/_labelmill"),
    }
    return post(spec.notify.url.get_secret_value(), _with_text(message), within_s=_WITHIN_S_BEFORE_A_RUN)


def _tell(spec: Spec, began: float, how: Mapping[str, Any], within_s: float) -> None:
    if spec.kind == "serve" or spec.notify is None or (spec.notify.when == "failure" and how["exit_code"] == 0):
        return
    message = {
        "job": spec.name,
        "kind": spec.kind,
        **_noted,
        **how,
        "duration_s": round(time.monotonic() - began, 1),
    }
    try:
        post(spec.notify.url.get_secret_value(), _with_text(message), within_s=within_s)
    except Exception as exc:  # noqa: BLE001 - the job has ended as it has
        logger.warning("the webhook of notify was not told: %s", type(exc).__name__)


def _with_text(message: Mapping[str, Any]) -> dict[str, Any]:
    """`text` is what Slack and others show, in which `<!channel>` from a file's name would call everybody."""
    said = f"labelmill {message['kind']} {message['job']}: {message['outcome']} (exit code {message['exit_code']})"
    lines = [said, *filter(None, [message.get("error"), message.get("summary")])]
    text = "\n".join(lines)[:_MOST_CHARACTERS]
    for character, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;")):
        text = text.replace(character, entity)
    return {"text": text, **message}
