"""Work that goes on while its results are used."""

import queue
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["ahead"]

T = TypeVar("T")


def ahead(items: Iterator[T], depth: int) -> Iterator[T]:
    """The same items, made by a thread of their own up to `depth` ahead; its error is raised here."""
    ready: queue.Queue[T | _Ended] = queue.Queue(depth)
    stopped = threading.Event()

    def put(entry: T | _Ended) -> None:
        while not stopped.is_set():
            with suppress(queue.Full):
                ready.put(entry, timeout=0.1)
                return

    def produce() -> None:
        error: BaseException | None = None
        try:
            for item in items:
                put(item)
                if stopped.is_set():
                    return
        except BaseException as exc:  # noqa: BLE001 - it belongs to the thread that waits for the items
            error = exc
        put(_Ended(error))

    threading.Thread(target=produce, daemon=True, name="ahead").start()
    try:
        while not isinstance(entry := ready.get(), _Ended):
            yield entry
        if entry.error is not None:
            raise entry.error
    finally:
        stopped.set()


@dataclass(frozen=True)
class _Ended:
    error: BaseException | None
