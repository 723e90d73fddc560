import asyncio
import time
from collections.abc import Sequence

import pytest

from labelmill.serve.batching import Batcher


class Recorder:
    """Work that keeps the batches it was given, and takes `takes_s` for each."""

    def __init__(self, takes_s: float = 0.0) -> None:
        self.batches: list[list[int]] = []
        self._takes_s = takes_s

    async def __call__(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        await asyncio.sleep(self._takes_s)
        if 13 in items:
            raise RuntimeError("thirteen")
        return [item * 10 for item in items]


async def submit_all(recorder: Recorder, items: Sequence[int], *, max_size: int, wait_s: float) -> list[object]:
    batcher: Batcher[int, int] = Batcher(recorder, max_size=max_size, wait_s=wait_s)
    batcher.start()
    answers = await asyncio.gather(*(batcher.submit(item) for item in items), return_exceptions=True)
    await batcher.stop()
    return answers


def test_burst_is_one_batch_and_each_gets_its_own_answer():
    recorder = Recorder()
    answers = asyncio.run(submit_all(recorder, range(20, 36), max_size=16, wait_s=5.0))
    assert answers == [item * 10 for item in range(20, 36)]
    assert recorder.batches == [list(range(20, 36))]


def test_full_batch_does_not_wait():
    started_s = time.perf_counter()
    asyncio.run(submit_all(Recorder(), range(8), max_size=4, wait_s=60.0))
    assert time.perf_counter() - started_s < 5


def test_lone_item_waits_no_longer_than_the_wait():
    started_s = time.perf_counter()
    asyncio.run(submit_all(Recorder(), [1], max_size=16, wait_s=0.05))
    assert 0.04 < time.perf_counter() - started_s < 5


def test_what_arrives_during_work_is_one_batch_although_the_wait_is_long_over():
    async def scenario() -> list[list[int]]:
        recorder = Recorder(takes_s=0.2)
        batcher: Batcher[int, int] = Batcher(recorder, max_size=16, wait_s=0.001)
        batcher.start()
        first = asyncio.create_task(batcher.submit(0))
        await asyncio.sleep(0.05)
        others = []
        for item in range(1, 6):  # each further apart than the wait
            others.append(asyncio.create_task(batcher.submit(item)))
            await asyncio.sleep(0.01)
        await asyncio.gather(first, *others)
        await batcher.stop()
        return recorder.batches

    assert asyncio.run(scenario()) == [[0], [1, 2, 3, 4, 5]]


def test_item_that_waited_out_a_pass_does_not_wait_again():
    async def scenario() -> float:
        starts, recorder = [], Recorder(takes_s=0.6)

        async def work(items: Sequence[int]) -> list[int]:
            starts.append(time.perf_counter())
            return await recorder(items)

        batcher: Batcher[int, int] = Batcher(work, max_size=16, wait_s=0.5)
        batcher.start()
        first = asyncio.create_task(batcher.submit(0))
        while not starts:
            await asyncio.sleep(0.01)
        await asyncio.gather(first, batcher.submit(1))
        await batcher.stop()
        return starts[1] - starts[0]

    assert asyncio.run(scenario()) < 0.9  # the pass, and not the wait after it


def test_failed_batch_fails_its_own_items_only():
    answers = asyncio.run(submit_all(Recorder(), [1, 13, 2, 3], max_size=2, wait_s=0.01))
    assert [str(answer) for answer in answers] == ["thirteen", "thirteen", "20", "30"]


def test_item_whose_client_left_is_not_worked_on():
    async def scenario() -> list[list[int]]:
        recorder = Recorder()
        batcher: Batcher[int, int] = Batcher(recorder, max_size=16, wait_s=0.05)
        batcher.start()
        gone, stays = asyncio.create_task(batcher.submit(1)), asyncio.create_task(batcher.submit(2))
        await asyncio.sleep(0.01)
        gone.cancel()
        assert await stays == 20
        await batcher.stop()
        return recorder.batches

    assert asyncio.run(scenario()) == [[2]]


def test_stop_leaves_nobody_waiting():
    async def scenario() -> None:
        batcher: Batcher[int, int] = Batcher(Recorder(takes_s=60.0), max_size=1, wait_s=0.0)
        batcher.start()
        tasks = [asyncio.create_task(batcher.submit(item)) for item in (1, 2)]
        await asyncio.sleep(0.05)
        await batcher.stop()
        for task in tasks:
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(scenario())
