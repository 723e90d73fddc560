"""Work that goes on while its results are used, or waited for."""

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

__all__ = ["ahead", "with_ticks"]

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


def with_ticks(items: Iterator[T], every_s: float, stop: Callable[[], bool]) -> Generator[T | None, None, None]:
    """The same items, taken by a thread of their own, and None every so often in between: so that nothing waits for a
    slow one. `stop` is called when this is left, and makes `items` end; the thread has ended before it returns, unless
    `stop` says that it cannot.
    """
    ready: queue.SimpleQueue[T | _Ended] = queue.SimpleQueue()
    begins, has_begun, is_left = threading.Lock(), False, False

    def take() -> None:
        nonlocal has_begun
        with begins:
            if is_left:
                return  # a signal was raised in the thread that started this one
            has_begun = True
        error: BaseException | None = None
        try:
            for item in items:
                ready.put(item)
        except BaseException as exc:  # noqa: BLE001 - raised again below, in the thread that the user sees
            error = exc
        ready.put(_Ended(error))

    thread = threading.Thread(target=take, name="take", daemon=True)
    try:
        thread.start()
        while True:
            try:
                entry = ready.get(timeout=every_s)
            except queue.Empty:
                yield None
                continue
            if isinstance(entry, _Ended):
                if entry.error is not None:
                    raise entry.error
                return
            yield entry
    finally:
        with begins:
            is_left = True
        if has_begun and stop():
            thread.join()


@dataclass(frozen=True)
class _Ended:
    error: BaseException | None
