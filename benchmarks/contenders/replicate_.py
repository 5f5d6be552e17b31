"""replicate: `async_run` without `Prefer: wait`, so that it polls, as it does for all that takes over a minute."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks.contenders.job import PROMPT, bounded

if TYPE_CHECKING:
    from collections import Counter

    from benchmarks.contenders.job import Job
    from benchmarks.measuring import Stopwatch

__all__ = ["run"]

replicate: Any = import_module("replicate")

MODEL = "black-forest-labs/flux-kontext-pro"


async def run(job: Job, stopwatch: Stopwatch) -> Counter[str]:
    """Do the job."""
    client = replicate.Client(api_token="benchmark", base_url=job.address)  # noqa: S106 # any will do

    async def one() -> None:
        output = await client.async_run(MODEL, {"prompt": PROMPT}, use_file_output=False, wait=False)
        if not output:
            raise RuntimeError("no image")

    stopwatch.start()
    failures = await bounded(one, job)
    stopwatch.stop()
    return failures
