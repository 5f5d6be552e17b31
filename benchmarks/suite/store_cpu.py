"""The store's share of the CPU of a task, its throughput, and the memory of a long run, on SQLite and PostgreSQL.

``python -m benchmarks.suite.store_cpu [--full]``

A process generates and saves images with 1,000 tasks in flight: each has a key and a row in the store, or there is no
store. Three such processes take turns, while the others wait: on a machine that others use, too, the CPU of the same
work differs by a half from one minute to the next. So only turns that are next to each other are compared. The gateway
of each is the emulator in a process of its own, with small images. The CPU of the PostgreSQL server is measured apart.
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
    from benchmarks.support.stores import StoreServer

__all__ = ["Sizes", "describe", "measure"]

NO_STORE = "no store"
MEMORY_SAMPLES = 20
MEMORY_GROWTH = 8.0
"""MiB by which memory may grow after the first twentieth of the tasks."""
LARGEST_SHARES = {SQLITE: 0.15, POSTGRES: 0.20}


@frozen
class Sizes:
    """How much to measure.

    Attributes:
        tasks: The tasks of each candidate.
        in_flight: The tasks in flight.
        turns: The turns in which each candidate takes them.
        service_time: The duration of the tasks.
    """

    tasks: int = 10_000
    in_flight: int = 1000
    turns: int = 4
    service_time: str = "lognormal:2.0,0.5"


@frozen
class Candidate:
    """A process that generates images, and its database.

    Attributes:
        process: The process.
        server: The database; None without a store.
    """

    process: subprocess.Popen[str]
    server: StoreServer | None

    def take_turn(self, tasks: int) -> dict[str, Any]:
        """Have the process generate so many images, and return what that took."""
        server_cpu = self._read_server_cpu()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{tasks}\n")
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the worker ended with {self.process.wait()}")
        figures: dict[str, Any] = json.loads(line)
        assert figures["tasks"] == tasks
        return {**figures, "server_cpu": self._read_server_cpu() - server_cpu}

    def _read_server_cpu(self) -> float:
        return self.server.cpu_seconds() if self.server else 0.0


def measure(quick: bool = True, sizes: Sizes | None = None) -> dict[str, Any]:  # noqa: FBT001, FBT002 # all have it
    """Measure CPU, throughput and memory with each store and without one, by turns."""
    sizes = sizes or (Sizes() if quick else Sizes(tasks=100_000, turns=20))
    with ExitStack() as stack:
        candidates = {
            kind: partial(start_candidate(stack, kind, sizes).take_turn, sizes.tasks // sizes.turns)
            for kind in (NO_STORE, SQLITE, POSTGRES)
        }
        turns = run_interleaved(candidates, sizes.turns)
    cpu = {kind: [turn["cpu"] / turn["tasks"] * 1e6 for turn in some] for kind, some in turns.items()}
    speed = {kind: [turn["tasks"] / turn["seconds"] for turn in some] for kind, some in turns.items()}
    shares = {kind: round(1 - compute_median_ratio(cpu[NO_STORE], cpu[kind]), 4) for kind in (SQLITE, POSTGRES)}
    memory = {kind: [sample for turn in some for sample in turn["memory"]] for kind, some in turns.items()}
    growths = {kind: round(max(samples) - samples[0], 1) for kind, samples in memory.items()}
    slower = compute_median_ratio(speed[SQLITE], speed[POSTGRES])
    return {
        "settings": {"tasks": sizes.tasks, "in_flight": sizes.in_flight, "turns": sizes.turns},
        "cpu_us_per_task": {kind: compute_median(some) for kind, some in cpu.items()},
        "tasks_per_second": {kind: compute_median(some) for kind, some in speed.items()},
        "server_cpu_us_per_task": compute_median(
            [turn["server_cpu"] / turn["tasks"] * 1e6 for turn in turns[POSTGRES]]
        ),
        "memory_growth_mib": growths,
        "all_turns": turns,
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


def start_candidate(stack: ExitStack, kind: str, sizes: Sizes) -> Candidate:
    """Start a process on a fresh store, with a gateway of its own."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    gateway = stack.enter_context(start_emulator("--service-time", sizes.service_time, "--pixels", "256"))
    server = None if kind == NO_STORE else stack.enter_context(start_store(kind, folder))
    environment = {**os.environ, **gateway.environment(), "KONTEXT_STORE": ""}
    if server:
        environment |= server.environment()
    every = max(1, sizes.tasks // MEMORY_SAMPLES)
    process = stack.enter_context(
        subprocess.Popen(
            [
                *(sys.executable, "-m", "benchmarks.suite.store_worker"),
                *(str(every), str(sizes.in_flight), str(folder)),
            ],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
    )
    return Candidate(process, server)


if __name__ == "__main__":
    from benchmarks.runner import run_alone

    run_alone("store_cpu")
