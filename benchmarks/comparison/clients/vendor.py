"""The vendor's own SDK: synchronous, one thread per task, a new connection for each request, a poll every 3 seconds."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import seaart_sdk

from benchmarks.comparison.clients.job import PROMPT, run_bounded

if TYPE_CHECKING:
    from collections import Counter

    from benchmarks.comparison.clients.job import Job
    from benchmarks.support.measure import Stopwatch

__all__ = ["run"]

BODY = {"model": "flux_kontext_pro", "input": [{"params": {"prompt": PROMPT}}]}


async def run(job: Job, stopwatch: Stopwatch) -> Counter[str]:
    """Run the job; the option `interval` is the sleep in seconds."""
    client = seaart_sdk.new(seaart_sdk.ClientConfig(api_key="benchmark", base_url=job.address))
    interval = seaart_sdk.with_poll_interval(job.options.get("interval", 3.0))

    def create_in_thread() -> None:
        if not client.modal.create(BODY).wait(interval).urls():
            raise RuntimeError("no image")

    with ThreadPoolExecutor(job.in_flight) as threads:
        stopwatch.start()
        failures = await run_bounded(lambda: asyncio.get_running_loop().run_in_executor(threads, create_in_thread), job)
        stopwatch.stop()
    return failures
