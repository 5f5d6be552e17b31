"""This package: one session, `generate_many`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from benchmarks.comparison.clients.job import PROMPT
from kontext_async import Limits, Polling, Settings
from kontext_async.session import KontextSession

if TYPE_CHECKING:
    from benchmarks.comparison.clients.job import Job
    from benchmarks.support.measure import Stopwatch

__all__ = ["run"]


def build_settings(job: Job) -> Settings:
    """Return the default settings with the job's limits and polling."""
    limits = Limits(max_in_flight=job.in_flight, **job.options.get("limits", {}))
    return Settings(limits=limits, polling=Polling(**job.options.get("polling", {})))


async def run(job: Job, stopwatch: Stopwatch) -> Counter[str]:
    """Run the job; the option `seed` is that of the session's random numbers."""
    failures: Counter[str] = Counter()
    async with KontextSession("benchmark", base_url=job.address, settings=build_settings(job)) as session:
        if "seed" in job.options:
            session._engine._context.random.seed(job.options["seed"])  # noqa: SLF001 # paired runs
        stopwatch.start()
        async for outcome in session.generate_many(PROMPT for _ in range(job.tasks)):
            if outcome.error:
                failures[type(outcome.error).__name__] += 1
        stopwatch.stop()
    return failures
