"""aiohttp by hand: a coroutine per task, a semaphore, and a sleep between two asks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp

from benchmarks.contenders.job import PROMPT, bounded

if TYPE_CHECKING:
    from collections import Counter

    from benchmarks.contenders.job import Job
    from benchmarks.measuring import Stopwatch

__all__ = ["run"]

BODY = {"model": "flux_kontext_pro", "input": [{"params": {"prompt": PROMPT}}]}
HEADERS = {"Authorization": "Bearer benchmark"}


async def run(job: Job, stopwatch: Stopwatch) -> Counter[str]:
    """Do the job; the option `interval` is the sleep in seconds."""
    interval = job.options.get("interval", 0.5)
    url = f"{job.address}/model/v1/generation"
    async with aiohttp.ClientSession(headers=HEADERS) as session:

        async def one() -> None:
            async with session.post(url, json=BODY) as answer:
                task = await answer.json()
            while task["status"] == "in_progress":
                await asyncio.sleep(interval)
                async with session.get(f"{url}/task/{task['id']}") as answer:
                    task = await answer.json()
            if task["status"] != "completed":
                raise RuntimeError(task["status"])

        stopwatch.start()
        failures = await bounded(one, job)
        stopwatch.stop()
    return failures
