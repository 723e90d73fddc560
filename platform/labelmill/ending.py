"""How a process ends before its time: by an exception in its main thread, so that what is open is closed on the way.

A signal ends it so, and the loss of what it works with, which another thread notices.
"""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

__all__ = ["Ending", "Ends", "end_main_thread", "ended_by_signals", "how_it_ends"]

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PATIENCE_S = 10.0


class Ending:
    """What ended a block before its time: an error, or a signal, or nothing."""

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.signal: signal.Signals | None = None
        self._raised_at = 0.0

    def end(self, number: int, _: FrameType | None) -> None:
        """The handler. An impatient second signal would leave Ray's processes behind; yet where Python drops what a
        handler raises, as in a destructor, the first was in vain."""
        if self.signal and time.monotonic() - self._raised_at < _PATIENCE_S:
            return
        self.signal, self._raised_at = signal.Signals(number), time.monotonic()
        raise SystemExit(128 + number)


_current: Ending | None = None


@contextmanager
def ended_by_signals() -> Iterator[Ending]:
    """For the time of the block, to be entered in the main thread, Ctrl-C, SIGTERM and SIGHUP raise SystemExit in it,
    with 128 and the signal's number. Nohup has one of them ignored, and that is left so.

    What then leaves the block may be another exception: Ray makes one of its own of what a handler raises while it
    waits, and drops what is neither SystemExit nor KeyboardInterrupt.
    """
    global _current
    before = {number: signal.getsignal(number) for number in _ENDING}
    _current = ending = Ending()
    for number, handler in before.items():
        if handler in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, ending.end)
    try:
        yield ending
    finally:
        if not ending.signal:  # else the process is about to end, and no further signal may take the place of this one
            for number, handler in before.items():
                signal.signal(number, handler)
        _current = None


def end_main_thread(error: Exception) -> None:
    """From any thread, end the block of `ended_by_signals`, if the main one is in such, for this reason."""
    if _current is not None:
        _current.error = error
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)


@dataclass(frozen=True)
class Ends:
    """How a process ends: its exit code, and why, on one line. `by_signal`: somebody outside waits for it."""

    code: int
    why: str
    by_signal: bool = False


def how_it_ends(exc: BaseException) -> Ends:
    """How a process ends that this exception leaves: a signal, or a loss, counts whatever became of it on the way."""
    if _current is not None and _current.signal:
        if _current.error is None:
            return Ends(128 + _current.signal, f"stopped by {_current.signal.name}", by_signal=True)
        exc = _current.error
    why = str(exc.args[0] if exc.args else "")
    why = " ".join(why.split()) or type(exc).__name__
    code = getattr(exc, "exit_code", None)
    return Ends(1, f"{type(exc).__name__}: {why}") if code is None else Ends(int(code), why)
