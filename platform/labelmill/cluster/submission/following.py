"""Being there while a job runs elsewhere: what it writes, and how it ends."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, suppress

from labelmill.cluster.submission.dashboard import Dashboard
from labelmill.cluster.submission.job import Job
from labelmill.errors import NoRayError

__all__ = ["follow", "wait_for_end"]

_LOOKS_EVERY_S = 3.0
_PATIENCE_S = 60.0


def follow(dashboard: Dashboard, job_id: str, put: Callable[[str], None]) -> Job:
    """Hand what the job has written, and what it writes, to `put`, until it has ended.

    NoRayError: the cluster did not answer for a minute, in which it may have been restarting. ClusterError: it knows
    the job no more.
    """
    return asyncio.run(_follow(dashboard, job_id, put))


def wait_for_end(dashboard: Dashboard, job_id: str, timeout_s: float) -> Job:
    """The job when it has ended, or as it is after so many seconds."""
    until = time.monotonic() + timeout_s
    while not (job := dashboard.job(job_id)).is_over and time.monotonic() < until:
        time.sleep(0.5)
    return job


async def _follow(dashboard: Dashboard, job_id: str, put: Callable[[str], None]) -> Job:
    import aiohttp

    log = _Log(dashboard, job_id)
    while True:
        with suppress(aiohttp.ClientError, OSError, RuntimeError):  # the connection; whether Ray answers is seen below
            async for text in log.unseen():
                put(text)
        job = await _asked_patiently(dashboard, job_id)
        if job.is_over:
            if rest := (await asyncio.to_thread(dashboard.logs, job_id))[log.num_seen :]:
                put(rest)
            return job
        await asyncio.sleep(_LOOKS_EVERY_S)


class _Log:
    """What a job writes. Each connection to it begins at the beginning: `num_seen` characters are not said again."""

    def __init__(self, dashboard: Dashboard, job_id: str) -> None:
        self._dashboard, self._job_id = dashboard, job_id
        self.num_seen = 0

    async def unseen(self) -> AsyncIterator[str]:
        """Ends when the job does, also where a partition has left a connection open that nothing comes over."""
        position = 0
        async with aclosing(self._dashboard.tail(self._job_id)) as tail:
            ahead = asyncio.ensure_future(anext(tail, None))
            try:
                while True:
                    if not (await asyncio.wait({ahead}, timeout=_LOOKS_EVERY_S))[0]:
                        if (await _asked_patiently(self._dashboard, self._job_id)).is_over:
                            return
                    elif (text := ahead.result()) is None:
                        return
                    else:
                        ahead = asyncio.ensure_future(anext(tail, None))
                        fresh = text[max(0, self.num_seen - position) :]
                        position += len(text)
                        self.num_seen = max(self.num_seen, position)
                        yield fresh
            finally:
                ahead.cancel()
                await asyncio.wait({ahead})


async def _asked_patiently(dashboard: Dashboard, job_id: str) -> Job:
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            return await asyncio.to_thread(dashboard.job, job_id)
        except NoRayError as exc:
            if time.monotonic() > until:
                raise NoRayError(f"{exc}. The job may go on: `labelmill logs {job_id} --follow`") from exc
        await asyncio.sleep(_LOOKS_EVERY_S)
