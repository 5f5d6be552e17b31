"""The vendor's own SDK: synchronous, one thread per task, a new connection for each request, an ask every 3 seconds."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import seaart_sdk

from benchmarks.contenders.job import PROMPT, bounded

if TYPE_CHECKING:
    from collections import Counter

    from benchmarks.contenders.job import Job
    from benchmarks.measuring import Stopwatch

__all__ = ["run"]

BODY = {"model": "flux_kontext_pro", "input": [{"params": {"prompt": PROMPT}}]}


async def run(job: Job, stopwatch: Stopwatch) -> Counter[str]:
    """Do the job; the option `interval` is the sleep in seconds."""
    client = seaart_sdk.new(seaart_sdk.ClientConfig(api_key="benchmark", base_url=job.address))
    interval = seaart_sdk.with_poll_interval(job.options.get("interval", 3.0))

    def in_thread() -> None:
        if not client.modal.create(BODY).wait(interval).urls():
            raise RuntimeError("no image")

    with ThreadPoolExecutor(job.in_flight) as threads:
        stopwatch.start()
        failures = await bounded(lambda: asyncio.get_running_loop().run_in_executor(threads, in_thread), job)
        stopwatch.stop()
    return failures
