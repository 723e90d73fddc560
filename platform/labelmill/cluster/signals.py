"""Signals belong to whoever starts a job, and not to Ray."""

import ctypes
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["signals_stay"]

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_PUT_BACK_EVERY_S = 0.005
_SIGACTION_BYTES = 1024  # more than any C library's structure has


@contextmanager
def signals_stay() -> Iterator[None]:
    """Whoever starts or ends Ray keeps his ways to end.

    Ray's Python side takes SIGTERM, and then ends with code 15. Its C++ side takes it as well, prints a trace of the
    machine's code, and gives it back to nobody. Both may happen in a thread, where Python's `signal` sets nothing, and
    of C++ it knows nothing: hence the C library's own call. Ray goes on for a second or two after it has let go, and a
    signal would then end the process at once: so they are put back all the time.
    """
    from ray._private import utils

    libc, take = ctypes.CDLL(None), utils.set_sigterm_handler
    actions = {number: ctypes.create_string_buffer(_SIGACTION_BYTES) for number in _ENDING}
    for number, action in actions.items():
        libc.sigaction(number, None, action)

    def put_back() -> None:
        for number, action in actions.items():
            libc.sigaction(number, action, None)

    def keep() -> None:
        while not over.wait(_PUT_BACK_EVERY_S):
            put_back()

    over, keeping = threading.Event(), threading.Thread(target=keep, name="signals", daemon=True)
    utils.set_sigterm_handler = lambda handler: None
    keeping.start()
    try:
        yield
    finally:
        utils.set_sigterm_handler = take
        over.set()
        keeping.join()
        put_back()
