"""The listing of a bucket: page after page, or by many requests at once, a sub-prefix each."""

from __future__ import annotations

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from typing import Any

from labelmill.errors import StorageError
from labelmill.storage.s3.page import Page, Progress
from labelmill.storage.s3.spelling import Spelling
from labelmill.storage.store import ObjectInfo

__all__ = ["Listing", "pages_at_once"]

_STREAMS = 16
_PROBED = 8
_WORTH_A_REQUEST = 250  # of the 1,000 keys that a request may bring


class Listing:
    """Of one bucket. `page(prefix, **request)` is one answer of the server, which errors name `server`; `info` tells
    of one object, or None. StorageError: what it lists cannot be all, or not what was asked for."""

    def __init__(self, page: Callable[..., Page], info: Callable[[str], ObjectInfo | None], server: str) -> None:
        self._page, self._server = page, server
        # There are servers that encode keys, and folders not.
        self._keys = Spelling(lambda key: info(key) is not None, server)
        self._folders = Spelling(lambda folder: not page(folder, MaxKeys=1).is_empty, server)

    def pages(self, prefix: str, **request: Any) -> Iterator[Page]:
        """All that begins with the prefix, page after page, with names as they are."""
        progress = Progress(self._server)
        token: str | None = ""
        while token is not None:
            page = self._page(prefix, **request, **({"ContinuationToken": token} if token else {}))
            keys = self._keys.read(page.keys, prefix, encoded=page.encoded)
            folders = self._folders.read(page.folders, prefix, encoded=page.encoded)
            if prefix in folders:
                raise StorageError(f"{self._server} lists the folder {prefix!r} as one in itself: it cannot be listed")
            yield replace(page, keys=keys, folders=folders)
            token = progress.after(page)

    def pages_at_once(self, top: str) -> Iterator[Page]:
        """All that begins with `top`, in any order, by up to 16 requests at a time."""
        return pages_at_once(self.pages, top, self._check_is_gone)

    def _check_is_gone(self, folder: str) -> None:
        """Of a folder that was listed by its name, and then had nothing in it."""
        around = folder[: folder[:-1].rfind("/") + 1]
        if any(folder in page.folders for page in self.pages(around, Delimiter="/")):
            raise StorageError(
                f"{self._server} lists the folder {folder!r}, and nothing in it when it is listed itself: it loses "
                "what lies there, or writes names otherwise than it was asked to. Nothing was concluded from that; "
                "mend the server or what lies before it, or name the pictures by a manifest."
            )


def pages_at_once(
    pages: Callable[..., Iterator[Page]], top: str, check_is_gone: Callable[[str], None]
) -> Iterator[Page]:
    """All keys that begin with `top`, each once and in any order, by up to 16 requests at a time.

    `pages(prefix, **request)` is one listing. `check_is_gone` is called with a folder that was listed by its name and
    then had nothing in it: it raises where that cannot be. A prefix is divided at its folders only while a stream has
    nothing to do, and not into thousands of folders of a few keys, which a single listing passes a thousand at a time.
    No order of keys is relied on: not every server sorts as Amazon does. At most two pages a stream wait to be taken.
    """
    streams = _Streams(pages, top, check_is_gone)
    for _ in range(_STREAMS):
        threading.Thread(target=streams.run, name="list", daemon=True).start()
    running = _STREAMS
    try:
        while running:
            item = streams.arrivals.get()
            if isinstance(item, BaseException):
                raise item
            if item is None:
                running -= 1
            else:
                yield item
    finally:
        streams.stop()


class _Streams:
    """What the threads of one listing share: the prefixes that wait, and the pages that arrived."""

    def __init__(self, pages: Callable[..., Iterator[Page]], top: str, check_is_gone: Callable[[str], None]) -> None:
        self.arrivals: queue.Queue[Page | BaseException | None] = queue.Queue(2 * _STREAMS)
        self._pages, self._top, self._check_is_gone = pages, top, check_is_gone
        self._waiting = deque([top])
        self._busy = 0
        self._stopped = False
        self._changed = threading.Condition()

    def run(self) -> None:
        try:
            while (prefix := self._next()) is not None:
                is_empty = True
                for page in self._divided(prefix) if self._has_idle() else self._pages(prefix):
                    is_empty = is_empty and page.is_empty
                    self._hand_over(page)
                    if self._stopped:
                        return
                if is_empty and prefix != self._top:
                    self._check_is_gone(prefix)
                self._done()
            self._hand_over(None)
        except BaseException as exc:  # noqa: BLE001 - raised again in the thread that lists
            self._hand_over(exc)

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _next(self) -> str | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or not self._busy or self._stopped)
            if self._stopped or not self._waiting:
                return None
            self._busy += 1
            return self._waiting.popleft()

    def _done(self) -> None:
        with self._changed:
            self._busy -= 1
            self._changed.notify_all()

    def _has_idle(self) -> bool:
        with self._changed:
            return self._busy + len(self._waiting) < _STREAMS

    def _divided(self, prefix: str) -> Iterator[Page]:
        for number, page in enumerate(self._pages(prefix, Delimiter="/")):
            if number == 0 and not self._is_worth_dividing(page):
                yield from self._pages(prefix)
                return
            with self._changed:
                self._waiting.extend(page.folders)
                self._changed.notify_all()
            yield page

    def _is_worth_dividing(self, page: Page) -> bool:
        """Ask a few of many folders: are they large enough for a request each?"""
        count = len(page.folders)
        if count <= _STREAMS:
            return True
        some = [page.folders[index * count // _PROBED] for index in range(_PROBED)]
        with ThreadPoolExecutor(_PROBED) as pool:
            firsts = list(pool.map(lambda folder: next(self._pages(folder)), some))
        return sum(len(first.keys) for first in firsts) >= _WORTH_A_REQUEST * _PROBED

    def _hand_over(self, item: Page | BaseException | None) -> None:
        while not self._stopped:
            with suppress(queue.Full):
                self.arrivals.put(item, timeout=0.2)
                return
