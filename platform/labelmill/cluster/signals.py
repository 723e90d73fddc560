"""Signals belong to whoever starts a job, and not to Ray."""

import ctypes
import signal
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["signals_stay"]

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_SIGACTION_BYTES = 1024  # more than any C library's structure has


@contextmanager
def signals_stay() -> Iterator[None]:
    """Whoever starts or ends Ray keeps his ways to end.

    Ray's Python side takes SIGTERM, and then ends with code 15. Its C++ side takes it as well, prints a trace of the
    machine's code, and gives it back to nobody. Both may happen in a thread, where Python's `signal` sets nothing, and
    of C++ it knows nothing: hence the C library's own call.
    """
    from ray._private import utils

    libc, take = ctypes.CDLL(None), utils.set_sigterm_handler
    actions = {number: ctypes.create_string_buffer(_SIGACTION_BYTES) for number in _ENDING}
    for number, action in actions.items():
        libc.sigaction(number, None, action)
    utils.set_sigterm_handler = lambda handler: None
    try:
        yield
    finally:
        utils.set_sigterm_handler = take
        for number, action in actions.items():
            libc.sigaction(number, action, None)
