"""Generates and saves many images in one process, by turns, with a store or without.

``python -m benchmarks.suite.store_worker EVERY IN_FLIGHT FOLDER`` reads ``KONTEXT_STORE``, which is empty for no store.
Each line of its standard input is the number of images of one turn; for each it prints what the turn took, as JSON. The
memory is sampled after every EVERY images. Between two turns nothing is in flight, and the process waits.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define, field

from benchmarks.support.heap import read_used_memory
from kontext_async import KontextSession, Limits, Polling, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["build_settings"]


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
        in_turn: Those of this turn.
        memory: MiB in use, at each sample of this turn.
        sampling: Seconds of CPU that these samples took. They are no part of a task.
    """

    every: int
    done: int = 0
    in_turn: int = 0
    memory: list[float] = field(factory=list)
    sampling: float = 0.0

    def start_turn(self) -> None:
        """Begin a turn."""
        self.in_turn, self.memory, self.sampling = 0, [], 0.0

    def count(self) -> None:
        """Count one task."""
        self.done += 1
        self.in_turn += 1
        if self.done % self.every == 0:
            began = time.thread_time()
            self.memory.append(round(read_used_memory(), 2))
            self.sampling += time.thread_time() - began


async def run_turns(counter: TaskCounter, in_flight: int, folder: Path, store: str | None) -> None:
    """Generate and save as many images as each line of the standard input says; print wall time, CPU and memory."""
    numbers = count()
    async with KontextSession(settings=build_settings(in_flight), store=store) as session:
        while line := await asyncio.to_thread(sys.stdin.readline):
            counter.start_turn()
            turn = islice(numbers, int(line))
            began, cpu_began = time.perf_counter(), time.process_time()
            async with asyncio.TaskGroup() as group:
                for slot in range(in_flight):
                    group.create_task(
                        _generate(session, turn, folder / f"{slot}.jpg", counter, keyed=store is not None)
                    )
            seconds, cpu = time.perf_counter() - began, time.process_time() - cpu_began - counter.sampling
            figures = {"tasks": counter.in_turn, "seconds": seconds, "cpu": cpu, "memory": counter.memory}
            print(json.dumps(figures), flush=True)


async def _generate(
    session: KontextSession, numbers: Iterator[int], path: Path, counter: TaskCounter, *, keyed: bool
) -> None:
    for number in numbers:
        prompt = f"a fox, number {number}"
        generation = await (session.generate(prompt, key=f"fox-{number}") if keyed else session.generate(prompt))
        await session.save(generation.image, path)
        counter.count()


if __name__ == "__main__":
    asyncio.run(
        run_turns(
            TaskCounter(int(sys.argv[1])), int(sys.argv[2]), Path(sys.argv[3]), os.environ.get("KONTEXT_STORE") or None
        )
    )
