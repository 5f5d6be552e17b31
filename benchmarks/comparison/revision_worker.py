"""Makes one measurement of `benchmarks.comparison.revisions` in its own process.

``python -P revision_worker.py JSON``, with the checkout in PYTHONPATH. The script does not import `benchmarks`, because
that would come from the checkout, and it uses only what every revision of the package has. It prints a JSON object:
`cpu` and `seconds` of the measured part, its number of `operations` and of `failures`, and the `path` of the checkout.

A measurement that has no end of its own prints an empty line when it begins, and ends at the next line of its standard
input: the process may be stopped and continued meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any, Self

import kontext_async
from kontext_async import KontextSession, Limits, Polling, Settings

PROMPT = "a red fox in snow"
WAVE = 100
"""Submissions at once."""


class Stopwatch:
    """Wall time and CPU time of a ``with`` block, in seconds."""

    seconds = cpu = 0.0

    def __enter__(self) -> Self:
        self._began, self._cpu_began = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.seconds, self.cpu = time.perf_counter() - self._began, time.process_time() - self._cpu_began

    def report(self, operations: int, failures: int = 0) -> dict[str, Any]:
        """Return the result of the measurement."""
        return {"seconds": self.seconds, "cpu": self.cpu, "operations": operations, "failures": failures}


def create_session(job: dict[str, Any]) -> KontextSession:
    """Return a session with the settings of the job."""
    settings = Settings(limits=Limits(**job["limits"]), polling=Polling(**job["polling"]))
    return KontextSession("benchmark", base_url=job["address"], settings=settings)


async def submit(session: KontextSession, tasks: int) -> None:
    """Submit tasks in waves."""
    for first in range(0, tasks, WAVE):
        await asyncio.gather(*(session.submit(PROMPT) for _ in range(min(WAVE, tasks - first))))


def count_polls(address: str) -> int:
    """Return how many status requests the server has received."""
    with urllib.request.urlopen(f"{address}/_counts", timeout=60) as response:  # noqa: S310 # our own server
        return int(json.load(response)["statuses"])


async def run_until_told() -> None:
    """Say that the measurement begins, and wait until it shall end."""
    print(flush=True)
    await asyncio.to_thread(sys.stdin.readline)


async def measure_polls(job: dict[str, Any]) -> dict[str, Any]:
    """Poll tasks that never end, after a warm-up."""
    async with create_session(job) as session:
        await submit(session, job["tasks"])
        await asyncio.sleep(job["warm_up"])
        before = await asyncio.to_thread(count_polls, job["address"])
        with Stopwatch() as stopwatch:
            await run_until_told()
        polls = await asyncio.to_thread(count_polls, job["address"]) - before
    return stopwatch.report(polls)


async def measure_creates(job: dict[str, Any]) -> dict[str, Any]:
    """Submit tasks that never end; the first wave is not measured."""
    created = 0
    async with create_session(job) as session:
        await submit(session, WAVE)
        with Stopwatch() as stopwatch:
            told = asyncio.create_task(run_until_told())
            while not told.done():
                await submit(session, WAVE)
                created += WAVE
    return stopwatch.report(created)


async def measure_generations(job: dict[str, Any]) -> dict[str, Any]:
    """Generate images from the first create request to the last completion."""
    async with create_session(job) as session:
        with Stopwatch() as stopwatch:
            outcomes = await session.generate_all([PROMPT] * job["tasks"])
    return stopwatch.report(job["tasks"], sum(outcome.error is not None for outcome in outcomes))


WORK = {"polls": measure_polls, "creates": measure_creates, "generations": measure_generations}


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Run the job, and return the result."""
    result = asyncio.run(WORK[job["work"]](job))
    return {**result, "path": str(Path(kontext_async.__file__).parents[1])}


if __name__ == "__main__":
    print(json.dumps(main(json.loads(sys.argv[1]))))
