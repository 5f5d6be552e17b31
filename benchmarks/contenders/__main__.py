"""One contender in a process of its own: reads its name and its job as JSON, and prints its report as JSON."""

from __future__ import annotations

import json
import sys
from contextlib import nullcontext
from importlib import import_module
from typing import TYPE_CHECKING

import attrs

from benchmarks.contenders.job import Job, Report
from benchmarks.measuring import run_measured
from benchmarks.sampling import Sampler

if TYPE_CHECKING:
    from collections import Counter

    from benchmarks.measuring import LoopWatch, Stopwatch


def report_of(name: str, job: Job) -> Report:
    """Have a contender do a job in this process."""
    contender = import_module(f"benchmarks.contenders.{name}")

    async def work(stopwatch: Stopwatch, watch: LoopWatch) -> Counter[str]:
        watch.restart()
        failures: Counter[str] = await contender.run(job, stopwatch)
        return failures

    sampler = Sampler()
    with sampler if job.options.get("profile") else nullcontext():
        measured = run_measured(work)
    return Report(
        seconds=measured.seconds,
        cpu=measured.cpu,
        stall=measured.stall,
        turns=measured.turns,
        failures=dict(measured.value),
        profile=sampler.shares(measured.cpu * 1e6 / job.tasks) if sampler.samples else {},
    )


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    print(json.dumps(attrs.asdict(report_of(given.pop("name"), Job(**given)))))
