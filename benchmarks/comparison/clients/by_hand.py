"""aiohttp by hand: a coroutine per task, a semaphore, and a sleep between two polls."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import aiohttp

from benchmarks.comparison.clients.job import PROMPT, run_bounded

if TYPE_CHECKING:
    from collections import Counter

    from benchmarks.comparison.clients.job import Job
    from benchmarks.support.measure import Stopwatch

__all__ = ["run"]

BODY = {"model": "flux_kontext_pro", "input": [{"params": {"prompt": PROMPT}}]}
HEADERS = {"Authorization": "Bearer benchmark"}


async def run(job: Job, stopwatch: Stopwatch) -> Counter[str]:
    """Run the job; the option `interval` is the sleep in seconds."""
    interval = job.options.get("interval", 0.5)
    url = f"{job.address}/model/v1/generation"
    async with aiohttp.ClientSession(headers=HEADERS) as session:

        async def create_one() -> None:
            async with session.post(url, json=BODY) as response:
                task = await response.json()
            while task["status"] == "in_progress":
                await asyncio.sleep(interval)
                async with session.get(f"{url}/task/{task['id']}") as response:
                    task = await response.json()
            if task["status"] != "completed":
                raise RuntimeError(task["status"])

        stopwatch.start()
        failures = await run_bounded(create_one, job)
        stopwatch.stop()
    return failures
