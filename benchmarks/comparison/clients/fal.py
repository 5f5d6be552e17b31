"""fal-client: `subscribe`, with its default polling. Its URLs are always https; the run replaces them by ours."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks.comparison.clients.job import PROMPT, run_bounded

if TYPE_CHECKING:
    from collections import Counter

    from benchmarks.comparison.clients.job import Job
    from benchmarks.support.measure import Stopwatch

__all__ = ["run"]

fal: Any = import_module("fal_client.client")


async def run(job: Job, stopwatch: Stopwatch) -> Counter[str]:
    """Run the job."""
    fal.QUEUE_URL_FORMAT = f"{job.address}/"
    client = fal.AsyncClient(key="benchmark")

    async def create_one() -> None:
        result = await client.subscribe("fal-ai/flux-pro/kontext", {"prompt": PROMPT})
        if not result["images"]:
            raise RuntimeError("no image")

    stopwatch.start()
    failures = await run_bounded(create_one, job)
    stopwatch.stop()
    return failures
