"""How often a store is asked, and how often again: one policy for every request of ours.

A request that failed for a passing reason is sent again after a wait that doubles and is drawn by chance, so that a
thousand workers do not return in step ("full jitter": M. Brooker, Exponential Backoff and Jitter, AWS 2015). A store
that says SlowDown is asked more slowly by the whole process, and not only by the request that was refused.
"""

import random
import threading
import time
from collections import deque
from collections.abc import Callable
from functools import lru_cache
from itertools import count
from typing import TypeVar

from labelmill.errors import SlowDownError, UnavailableError
from labelmill.storage.limit import limit

__all__ = ["Pace", "num_retries", "one_try_s", "pace_of", "patiently"]

T = TypeVar("T")

_TRIES_OF_A_STRANGER = 6  # a store that never answered this process is most likely misnamed: about 3 s
_FIRST_WAIT_S = 0.2
_LEAST_RATE = 1.0  # requests a second and process: a store that still says SlowDown now has a whole second for each
_CUT = 0.7  # as in the adaptive mode of the AWS SDKs
_CUT_EVERY_S = 1.0
_BACK_IN_S = 10.0
_MEASURED_S = 1.0


class Pace:
    """How often one process asks one store: as often as it likes, until the store says SlowDown.

    Then by additive increase and multiplicative decrease (Chiu and Jain 1989): a second with a SlowDown cuts the rate,
    answers raise it again, from nothing to the rate before the first SlowDown in 10 s; there the limit ends.
    """

    def __init__(self) -> None:
        self._gate = threading.Lock()  # held by whoever is next, the others queue behind it
        self._lock = threading.Lock()
        self._starts: deque[float] = deque(maxlen=1024)
        self._next_at = 0.0
        self._rate: float | None = None
        self._full_rate = self._cut_at = 0.0
        self.has_answered = False

    @property
    def rate(self) -> float | None:
        """Requests a second that are allowed now; None: as many as it likes."""
        return self._rate

    def wait(self, until: float | None = None) -> bool:
        """Wait for this request's turn; False when it would come later than `until` (of `time.monotonic`)."""
        left_s = -1 if until is None else max(0.0, until - time.monotonic())
        if not self._gate.acquire(timeout=left_s):
            return False
        try:
            now = time.monotonic()
            if self._next_at > now:
                if until is not None and self._next_at > until:
                    return False
                time.sleep(self._next_at - now)
                now = time.monotonic()
            self._starts.append(now)
            self._next_at = now + 1 / self._rate if self._rate else 0.0
        finally:
            self._gate.release()
        return True

    def slow_down(self, started_at: float) -> None:
        """The store refused a request, sent at `started_at`, because there were too many."""
        self.has_answered = True
        with self._lock:
            if self._rate is not None and started_at < self._cut_at + _CUT_EVERY_S:
                return  # it says little about the rate since that was cut
            now = time.monotonic()
            if self._rate is None:
                asked = sum(start > now - _MEASURED_S for start in list(self._starts))
                self._rate = self._full_rate = max(asked / _MEASURED_S, _LEAST_RATE)
            self._rate = max(_LEAST_RATE, self._rate * _CUT)
            self._cut_at = now
            self._next_at = now + 1 / self._rate

    def answered(self) -> None:
        self.has_answered = True
        if self._rate is None:
            return
        with self._lock:
            if self._rate is not None:
                self._rate += self._full_rate / (_BACK_IN_S * self._rate)
                if self._rate >= self._full_rate:
                    self._rate = None


@lru_cache(maxsize=64)
def pace_of(endpoint: str, bucket: str) -> Pace:
    """The one pace at which this process asks this bucket."""
    return Pace()


def patiently(attempt: Callable[[], T], pace: Pace, *, timeout_s: float, one_try_s: float, urgent: bool = False) -> T:
    """What `attempt` gives; it is called again while it raises UnavailableError and there is time.

    The last call begins early enough to end within about `timeout_s` of the first, if it takes no longer than
    `one_try_s`. An `urgent` request does not queue behind the others when the store wants fewer: those are the ones a
    run cannot do without, its lease and its table.
    """
    if not urgent:
        pace.wait()
    limit.wait(urgent=urgent)
    until = time.monotonic() + timeout_s - one_try_s
    for number in count():
        started_at = time.monotonic()
        try:
            result = attempt()
        except UnavailableError as exc:
            if isinstance(exc, SlowDownError):
                pace.slow_down(started_at)
            wait_s = random.uniform(0, min(_FIRST_WAIT_S * 2**number, one_try_s / 2))
            strange = not pace.has_answered and number + 1 >= _TRIES_OF_A_STRANGER
            if strange or time.monotonic() + wait_s >= until:
                raise
            time.sleep(wait_s)
            if not urgent and not pace.wait(until):
                raise
            until += limit.wait(urgent=urgent)  # that there may be few requests is no fault of the store
            _retries.add()
        else:
            pace.answered()
            return result
    raise AssertionError("count() does not end")


def one_try_s(timeout_s: float) -> float:
    """Seconds without an answer after which a request is given up, so that there is time for another."""
    return min(15.0, timeout_s / 4)


def num_retries() -> int:
    """How many requests this process has sent again so far; the difference over some work is what that work took."""
    return _retries.count


class _Counter:
    def __init__(self) -> None:
        self.count = 0
        self._lock = threading.Lock()

    def add(self) -> None:
        with self._lock:
            self.count += 1


_retries = _Counter()
