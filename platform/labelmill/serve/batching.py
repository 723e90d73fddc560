"""Many requests, one forward pass."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

__all__ = ["Batcher"]

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(slots=True)
class _Waiting(Generic[Item, Result]):
    item: Item
    since_s: float
    result: "asyncio.Future[Result]"


class Batcher(Generic[Item, Result]):
    """Collects items until `max_size` wait or the first has waited `wait_s`, and works on them together.

    `work` gets a batch and returns one result for each, in order; it runs in one batch at a time. What arrives while it
    runs joins the next batch, whole: Ray Serve's own `@serve.batch` closes a batch when its wait is over although the
    model is still busy, and so turns one burst into a row of small batches; it also runs nowhere but in a replica.
    """

    def __init__(
        self, work: Callable[[Sequence[Item]], Awaitable[Sequence[Result]]], *, max_size: int, wait_s: float
    ) -> None:
        self._work, self._max_size, self._wait_s = work, max_size, wait_s
        self._waiting: list[_Waiting[Item, Result]] = []
        self._some, self._full = asyncio.Event(), asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to work, on the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    async def stop(self) -> None:
        """Stop, cancelling whoever still waits."""
        assert self._task is not None, "started first"
        self._task.cancel()
        await asyncio.wait([self._task])
        for waiting in self._waiting:
            waiting.result.cancel()

    async def submit(self, item: Item) -> Result:
        """The result for one item. Raises what `work` raised for its batch."""
        loop = asyncio.get_running_loop()
        waiting: _Waiting[Item, Result] = _Waiting(item, loop.time(), loop.create_future())
        self._waiting.append(waiting)
        self._some.set()
        if len(self._waiting) >= self._max_size:
            self._full.set()
        return await waiting.result

    async def _run(self) -> None:
        while True:
            batch = await self._next_batch()
            if not batch:
                continue
            try:
                results = await self._work([waiting.item for waiting in batch])
                assert len(results) == len(batch), "one result for each item"
            except asyncio.CancelledError:
                for waiting in batch:
                    waiting.result.cancel()
                raise
            except Exception as exc:  # noqa: BLE001 - it belongs to those who wait; the next batch has its own luck
                for waiting in batch:
                    if not waiting.result.done():
                        waiting.result.set_exception(exc)
            else:
                for waiting, result in zip(batch, results, strict=True):
                    if not waiting.result.done():  # who has gone away no longer wants it
                        waiting.result.set_result(result)

    async def _next_batch(self) -> list[_Waiting[Item, Result]]:
        await self._some.wait()
        left_s = self._waiting[0].since_s + self._wait_s - asyncio.get_running_loop().time()
        if len(self._waiting) < self._max_size and left_s > 0:
            self._full.clear()
            try:
                async with asyncio.timeout(left_s):
                    await self._full.wait()
            except TimeoutError:
                pass  # the first has waited long enough: go with those who are here
        batch, self._waiting = self._waiting[: self._max_size], self._waiting[self._max_size :]
        if not self._waiting:
            self._some.clear()
        return [waiting for waiting in batch if not waiting.result.done()]
