"""fal-client: `subscribe`, as it polls by default. Its address is always https; here it is made the server's."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks.contenders.job import PROMPT, bounded

if TYPE_CHECKING:
    from collections import Counter

    from benchmarks.contenders.job import Job
    from benchmarks.measuring import Stopwatch

__all__ = ["run"]

fal: Any = import_module("fal_client.client")


async def run(job: Job, stopwatch: Stopwatch) -> Counter[str]:
    """Do the job."""
    fal.QUEUE_URL_FORMAT = f"{job.address}/"
    client = fal.AsyncClient(key="benchmark")

    async def one() -> None:
        result = await client.subscribe("fal-ai/flux-pro/kontext", {"prompt": PROMPT})
        if not result["images"]:
            raise RuntimeError("no image")

    stopwatch.start()
    failures = await bounded(one, job)
    stopwatch.stop()
    return failures
