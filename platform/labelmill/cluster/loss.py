"""Whether Ray is still there. It ends a process that has lost it, with all that is open and without a word."""

import atexit
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType

import psutil

from labelmill.cluster.signals import signals_stay
from labelmill.ending import end_main_thread
from labelmill.errors import NoRayError

__all__ = ["Head", "gone_process", "is_lost", "shut_down", "watched"]

_LOOK_EVERY_S = 0.2
_ASK_EVERY_S = 3.0
_HEAD_SILENT_S = 40.0  # after 60 Ray ends this process

_lost = threading.Event()


def is_lost() -> bool:
    """Whether Ray was gone while this process was connected to it: whoever asks it anything more waits for ever."""
    return _lost.is_set()


@contextmanager
def watched(gone: Callable[[], str | None]) -> Iterator[None]:
    """Ray ends a process that has lost it, with all that is open and no word: within a second or two of the death of
    its raylet, and after a minute without its head. So it is looked at here, and the main thread is ended before."""
    _lost.clear()
    done = threading.Event()

    def watch() -> None:
        while not done.wait(_LOOK_EVERY_S):
            if reason := gone():
                _lost.set()
                end_main_thread(NoRayError(f"{reason}. What was finished stays: run the same command again to go on."))
                return

    watching = threading.Thread(target=watch, name="watch", daemon=True)
    watching.start()
    try:
        yield
    finally:
        done.set()
        watching.join()


def gone_process() -> str | None:
    """Which part of the own Ray is gone. Not reaped here: Ray takes its raylet for alive until it is."""
    from ray._private import worker

    for name, processes in dict(worker._global_node.all_processes).items():
        for one in processes:
            try:
                if psutil.Process(one.process.pid).status() != psutil.STATUS_ZOMBIE:
                    continue
            except psutil.NoSuchProcess:
                pass
            return f"Ray's {name} on this machine ended unexpectedly, for want of memory perhaps"
    return None


class Head:
    """The head of a cluster; with fault tolerance it may come back."""

    def __init__(self, place: str) -> None:
        host, _, port = place.rpartition(":")
        self._place, self._at = place, (host.strip("[]"), int(port))
        self._answered_at = self._looked_at = time.monotonic()

    def gone(self) -> str | None:
        now = time.monotonic()
        if now - self._looked_at > _ASK_EVERY_S:
            self._looked_at = now
            try:
                socket.create_connection(self._at, timeout=_ASK_EVERY_S).close()
                self._answered_at = time.monotonic()
            except OSError:
                silent_s = time.monotonic() - self._answered_at
                if silent_s > _HEAD_SILENT_S:
                    return f"the head of the Ray cluster at {self._place} has not answered for {silent_s:.0f} s"
        return None


def shut_down(ray: ModuleType) -> None:
    if is_lost():  # it would wait for who does not answer; its processes end with this one
        atexit.unregister(ray.shutdown)
        return
    with signals_stay():
        ray.shutdown()
