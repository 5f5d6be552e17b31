"""A job queue: arq on a real Redis. The key of each image is the ID of its job."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
from typing import TYPE_CHECKING, Any

import pytest
from attrs import evolve

from kontext_async import KontextSession
from kontext_async.emulator import Emulator
from kontext_async.settings import StoreSettings
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from pathlib import Path

    from arq import ArqRedis
    from arq.worker import Worker

arq = pytest.importorskip("arq")

pytestmark = [
    pytest.mark.asyncio,
    pytest.mark.filterwarnings("ignore:Call to deprecated close:DeprecationWarning"),  # arq closes its pool that way
    pytest.mark.filterwarnings("ignore:Unclosed client session:ResourceWarning"),  # and leaves a cancelled pipeline
]

JOBS = 6


async def paint(context: dict[str, Any], prompt: str) -> str:
    session: KontextSession = context["session"]
    generation = await session.generate(prompt, key=context["job_id"])
    return generation.task_id


class Queue:
    """A queue with jobs, and workers that share a store."""

    def __init__(self, redis: ArqRedis, emulator: Emulator, folder: Path) -> None:
        self.redis = redis
        self.emulator = emulator
        self.folder = folder

    def session(self) -> KontextSession:
        return KontextSession(
            self.emulator.api_key,
            base_url=self.emulator.base_url,
            settings=evolve(FAST, store=StoreSettings(lease=2.0, beat=0.5, spool=self.folder / "spool")),
            store=f"sqlite:///{self.folder / 'paid.db'}",
        )

    def worker(self) -> Worker:
        async def open_session(context: dict[str, Any]) -> None:
            context["session"] = await self.session().start()

        async def close_session(context: dict[str, Any]) -> None:
            await context["session"].aclose()

        return arq.worker.Worker(  # type: ignore[no-any-return] # arq is an optional import here
            [arq.worker.func(paint, name="paint", max_tries=10)],
            redis_pool=self.redis,
            on_startup=open_session,
            on_shutdown=close_session,
            burst=True,
            handle_signals=False,
            poll_delay=0.01,
        )

    async def enqueue(self) -> list[Any]:
        return [
            await self.redis.enqueue_job("paint", f"fox {number}", _job_id=f"job-{number}") for number in range(JOBS)
        ]


async def with_queue(url: str, emulator: Emulator, folder: Path, use: Any) -> None:
    redis = await arq.create_pool(arq.connections.RedisSettings.from_dsn(url))
    try:
        await use(Queue(redis, emulator, folder))
    finally:
        await redis.aclose()
        gc.collect()  # what arq leaves, while its warning is ignored


def has_accepted(emulator: Emulator, number: int) -> Coroutine[Any, Any, None]:
    async def wait() -> None:
        async with asyncio.timeout(20):
            while emulator.ledger.accepted < number:
                await asyncio.sleep(0.01)

    return wait()


async def test_each_job_is_billed_once(redis_url: str, tmp_path: Path) -> None:
    async def use(queue: Queue) -> None:
        jobs = await queue.enqueue()
        worker = queue.worker()
        await worker.async_run()
        await worker.close()
        results = [await job.result(timeout=5) for job in jobs]
        assert len(set(results)) == JOBS
        assert queue.emulator.ledger.billed == JOBS

    async with Emulator(service_time=0.05, pixels=64 * 64) as emulator:
        await with_queue(redis_url, emulator, tmp_path, use)


async def test_a_worker_that_is_terminated_leaves_its_jobs_to_the_next_one_and_nothing_is_billed_twice(
    redis_url: str, tmp_path: Path
) -> None:
    async def use(queue: Queue) -> None:
        jobs = await queue.enqueue()
        first = queue.worker()
        running = asyncio.create_task(first.async_run())
        await has_accepted(queue.emulator, JOBS)
        first.handle_sig(signal.SIGTERM)
        await asyncio.wait([running, *first.tasks.values()])
        with contextlib.suppress(asyncio.CancelledError):  # arq hands on the end of a job that it has cancelled
            await first.close()
        second = queue.worker()
        await second.async_run()
        await second.close()
        results = [await job.result(timeout=5) for job in jobs]
        assert sorted(results) == sorted(queue.emulator.ledger.task_ids)
        assert queue.emulator.ledger.billed == JOBS

    async with Emulator(service_time=1.0, pixels=64 * 64) as emulator:
        await with_queue(redis_url, emulator, tmp_path, use)
