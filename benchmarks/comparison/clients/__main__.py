"""Runs one client in its own process: reads its name and its job as JSON, and prints its report as JSON."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from importlib import import_module
from typing import TYPE_CHECKING

import attrs

from benchmarks.comparison.clients.job import ClientReport, Job
from benchmarks.support.measure import measure_run
from benchmarks.support.sampling import Sampler

if TYPE_CHECKING:
    from collections import Counter

    from benchmarks.support.measure import LoopWatch, Stopwatch


def run_client(name: str, job: Job) -> ClientReport:
    """Run a job with one client, in this process."""
    client = import_module(f"benchmarks.comparison.clients.{name}")

    async def work(stopwatch: Stopwatch, watch: LoopWatch) -> Counter[str]:
        watch.reset()
        failures: Counter[str] = await client.run(job, stopwatch)
        return failures

    sampler = Sampler()
    with sampler if job.options.get("profile") else nullcontext():
        measured = measure_run(work)
    return ClientReport(
        seconds=measured.seconds,
        cpu=measured.cpu,
        stall=measured.stall,
        turns=measured.turns,
        failures=dict(measured.value),
        profile=sampler.divide(measured.cpu * 1e6 / job.tasks) if sampler.samples else {},
    )


if __name__ == "__main__":
    arguments = json.loads(sys.argv[1])
    print(json.dumps(attrs.asdict(run_client(arguments.pop("client"), Job(**arguments)))))
