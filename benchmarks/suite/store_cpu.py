"""The store's share of the CPU of a task, its throughput, and the memory of a long run, on SQLite and PostgreSQL.

``python -m benchmarks.suite.store_cpu [--full]``

A process generates and saves images with 1,000 tasks in flight: each has a key and a row in the store, or there is no
store. The candidates take turns. The gateway is the emulator in a process of its own, with small images. The CPU of the
PostgreSQL server is measured apart.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from benchmarks.support.measure import compute_median, compute_median_ratio, run_interleaved
from benchmarks.support.server_process import ROOT, start_emulator
from benchmarks.support.stores import POSTGRES, SQLITE, start_store
from benchmarks.support.thresholds import check_threshold

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Sizes", "describe", "measure"]

NO_STORE = "no store"
MEMORY_GROWTH = 8.0
"""MiB by which memory may grow after the first twentieth of the tasks."""
LARGEST_SHARES = {SQLITE: 0.15, POSTGRES: 0.20}


@frozen
class Sizes:
    """How much to measure.

    Attributes:
        tasks: The tasks of a run.
        in_flight: The tasks in flight.
        rounds: How often each candidate runs.
        service_time: The duration of the tasks.
    """

    tasks: int = 10_000
    in_flight: int = 1000
    rounds: int = 3
    service_time: str = "lognormal:2.0,0.5"


def measure(quick: bool = True, sizes: Sizes | None = None) -> dict[str, Any]:  # noqa: FBT001, FBT002 # all have it
    """Measure CPU, throughput and memory with each store and without one, and compare runs side by side."""
    sizes = sizes or Sizes(tasks=10_000 if quick else 100_000)
    candidates: dict[str, Callable[[], dict[str, Any]]] = {
        kind: partial(run_once, kind, sizes) for kind in (NO_STORE, SQLITE, POSTGRES)
    }
    runs = run_interleaved(candidates, sizes.rounds)
    cpu = {kind: [run["cpu"] / run["tasks"] * 1e6 for run in some] for kind, some in runs.items()}
    speed = {kind: [run["tasks"] / run["seconds"] for run in some] for kind, some in runs.items()}
    shares = {kind: round(1 - compute_median_ratio(cpu[NO_STORE], cpu[kind]), 4) for kind in (SQLITE, POSTGRES)}
    growths = {
        kind: round(max(max(run["memory"]) - run["memory"][0] for run in some), 1) for kind, some in runs.items()
    }
    slower = compute_median_ratio(speed[SQLITE], speed[POSTGRES])
    return {
        "settings": {"tasks": sizes.tasks, "in_flight": sizes.in_flight, "runs": sizes.rounds},
        "cpu_us_per_task": {kind: compute_median(some) for kind, some in cpu.items()},
        "tasks_per_second": {kind: compute_median(some) for kind, some in speed.items()},
        "server_cpu_us_per_task": compute_median([run["server_cpu"] / run["tasks"] * 1e6 for run in runs[POSTGRES]]),
        "memory_growth_mib": growths,
        "all_runs": runs,
        "thresholds": [
            *(
                check_threshold(f"the store's share of the CPU of a task, {kind}", share, LARGEST_SHARES[kind])
                for kind, share in shares.items()
            ),
            check_threshold(
                "throughput with SQLite, as a multiple of that with PostgreSQL", slower, round(1 / 0.95, 3)
            ),
            *(
                check_threshold(f"growth of memory, {kind}", growths[kind], MEMORY_GROWTH, "MiB")
                for kind in (SQLITE, POSTGRES)
            ),
        ],
    }


def describe(figures: dict[str, Any]) -> list[str]:
    """Return the medians."""
    lines = [
        f"{kind}: {micro:g} us a task, {figures['tasks_per_second'][kind]:g} tasks a second, "
        f"memory {figures['memory_growth_mib'][kind]:+g} MiB"
        for kind, micro in figures["cpu_us_per_task"].items()
    ]
    return [*lines, f"the PostgreSQL server: {figures['server_cpu_us_per_task']:g} us a task"]


def run_once(kind: str, sizes: Sizes) -> dict[str, Any]:
    """Run the tasks in a process of its own, on a fresh store."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        gateway = stack.enter_context(start_emulator("--service-time", sizes.service_time, "--pixels", "256"))
        store = None if kind == NO_STORE else stack.enter_context(start_store(kind, folder))
        environment = {**os.environ, **gateway.environment(), "KONTEXT_STORE": ""}
        if store:
            environment |= store.environment()
        server_cpu = store.cpu_seconds() if store else 0.0
        done = subprocess.run(
            [
                *(sys.executable, "-m", "benchmarks.suite.store_worker"),
                *(str(sizes.tasks), str(sizes.in_flight), str(folder)),
            ],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"the worker ended with {done.returncode}: {done.stderr.decode()[-2000:]}")
        figures: dict[str, Any] = json.loads(done.stdout)
        figures["server_cpu"] = (store.cpu_seconds() if store else 0.0) - server_cpu
    assert figures["tasks"] == sizes.tasks
    return figures


if __name__ == "__main__":
    from benchmarks.runner import run_alone

    run_alone("store_cpu")
