"""Generates and saves many images in one process, with a store or without, and prints what it took as JSON.

``python -m benchmarks.suite.store_worker TASKS IN_FLIGHT FOLDER`` reads ``KONTEXT_STORE``, which is empty for no store.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define, field

from benchmarks.support.heap import read_used_memory
from kontext_async import KontextSession, Limits, Polling, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["MEMORY_SAMPLES", "run_tasks"]

MEMORY_SAMPLES = 20


def build_settings(in_flight: int) -> Settings:
    """Return settings with room for all tasks in flight."""
    return Settings(
        limits=Limits(max_in_flight=in_flight, max_connections=300, max_polls_in_flight=100, polls_per_second=2000.0),
        polling=Polling(initial_delay=1.0, interval=1.0),
    )


@define
class TaskCounter:
    """Counts completed tasks, and samples the memory.

    Attributes:
        every: The tasks between two samples.
        done: The completed tasks.
        memory: MiB in use, at each sample.
        sampling: Seconds of CPU that the samples took. They are no part of a task.
    """

    every: int
    done: int = 0
    memory: list[float] = field(factory=list)
    sampling: float = 0.0

    def count(self) -> None:
        """Count one task."""
        self.done += 1
        if self.done % self.every == 0:
            began = time.thread_time()
            self.memory.append(round(read_used_memory(), 2))
            self.sampling += time.thread_time() - began


async def run_tasks(tasks: int, in_flight: int, folder: Path, store: str | None) -> dict[str, Any]:
    """Generate and save so many images; return wall time, CPU and memory."""
    counter = TaskCounter(max(1, tasks // MEMORY_SAMPLES))
    async with KontextSession(settings=build_settings(in_flight), store=store) as session:
        numbers = iter(range(tasks))
        began, cpu_began = time.perf_counter(), time.process_time()
        async with asyncio.TaskGroup() as group:
            for slot in range(in_flight):
                group.create_task(_generate(session, numbers, folder / f"{slot}.jpg", counter, keyed=store is not None))
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu_began - counter.sampling
    return {"tasks": counter.done, "seconds": seconds, "cpu": cpu, "memory": counter.memory}


async def _generate(
    session: KontextSession, numbers: Iterator[int], path: Path, counter: TaskCounter, *, keyed: bool
) -> None:
    for number in numbers:
        prompt = f"a fox, number {number}"
        generation = await (session.generate(prompt, key=f"fox-{number}") if keyed else session.generate(prompt))
        await session.save(generation.image, path)
        counter.count()


if __name__ == "__main__":
    given = asyncio.run(
        run_tasks(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), os.environ.get("KONTEXT_STORE") or None)
    )
    print(json.dumps(given))
