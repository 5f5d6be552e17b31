"""runwayml: `create`, then `wait_for_task_output`, which polls every 4.5 to 7.5 seconds."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from benchmarks.comparison.clients.job import PROMPT, run_bounded

if TYPE_CHECKING:
    from collections import Counter

    from benchmarks.comparison.clients.job import Job
    from benchmarks.support.measure import Stopwatch

__all__ = ["run"]

runwayml: Any = import_module("runwayml")


async def run(job: Job, stopwatch: Stopwatch) -> Counter[str]:
    """Run the job."""
    async with runwayml.AsyncRunwayML(api_key="benchmark", base_url=job.address) as client:

        async def create_one() -> None:
            task = await client.text_to_image.create(model="gen4_image", prompt_text=PROMPT, ratio="1920:1080")
            await task.wait_for_task_output()

        stopwatch.start()
        failures = await run_bounded(create_one, job)
        stopwatch.stop()
    return failures
