"""replicate: `async_run` without `Prefer: wait`, so that it polls, as it does for tasks that take over a minute."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks.comparison.clients.job import PROMPT, run_bounded

if TYPE_CHECKING:
    from collections import Counter

    from benchmarks.comparison.clients.job import Job
    from benchmarks.support.measure import Stopwatch

__all__ = ["run"]

replicate: Any = import_module("replicate")

MODEL = "black-forest-labs/flux-kontext-pro"


async def run(job: Job, stopwatch: Stopwatch) -> Counter[str]:
    """Run the job."""
    client = replicate.Client(api_token="benchmark", base_url=job.address)  # noqa: S106 # the server accepts any

    async def create_one() -> None:
        output = await client.async_run(MODEL, {"prompt": PROMPT}, use_file_output=False, wait=False)
        if not output:
            raise RuntimeError("no image")

    stopwatch.start()
    failures = await run_bounded(create_one, job)
    stopwatch.stop()
    return failures
