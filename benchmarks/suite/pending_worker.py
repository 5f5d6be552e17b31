"""Keeps many tasks pending in its own process, and measures it for `benchmarks.suite.memory`.

``python -m benchmarks.suite.pending_worker memory|stall JSON``; the JSON has `address`, `tasks`, `steps`, `watched`.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import tracemalloc
from collections import Counter
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from benchmarks.support.measure import measure_run, measure_traced_memory
from benchmarks.support.server_process import ROOT
from kontext_async import KontextSession, Limits, Settings

if TYPE_CHECKING:
    from benchmarks.support.measure import LoopWatch, Stopwatch
    from kontext_async import GenerationTask

__all__: list[str] = []

PROMPT = "a red fox in snow"
WAVE = 100
"""Submissions at once, where the memory is measured."""


def create_session(address: str, tasks: int) -> KontextSession:
    return KontextSession("benchmark", base_url=address, settings=Settings(limits=Limits(max_in_flight=tasks)))


async def measure_memory(address: str, tasks: int, steps: int) -> dict[str, Any]:
    """Return what submitted tasks retain, in bytes per task."""
    handles: list[GenerationTask] = []
    async with create_session(address, tasks) as session:
        await _submit(session, handles, WAVE)  # loads the code, opens connections and fills caches
        warm, began = len(handles), measure_traced_memory()
        before = tracemalloc.take_snapshot()
        curve = [(0, 0)]
        for step in range(1, steps + 1):
            await _submit(session, handles, warm + step * (tasks - warm) // steps)
            curve.append((len(handles) - warm, measure_traced_memory() - began))
        bytes_by_line = _divide_by_line(tracemalloc.take_snapshot(), before, tasks - warm)
        objects_by_class = _count_objects(tasks - warm)
        handles.clear()
        without = measure_traced_memory() - began
        pending = session.statistics().pending
    measured = tasks - warm
    return {
        "curve": curve,
        "bytes_with_handles": round(curve[-1][1] / measured, 1),
        "bytes_without_handles": round(without / measured, 1),
        "bytes_by_line": bytes_by_line,
        "objects_by_class": objects_by_class,
        "pending": pending,
    }


async def measure_stall(address: str, tasks: int, watched: float, watch: LoopWatch) -> dict[str, Any]:
    """Return the longest turn of the loop while all tasks are submitted together, and while they are polled."""
    async with create_session(address, tasks) as session, aclosing(session.generate_many([PROMPT] * tasks)) as outcomes:
        watch.reset()
        waiting = asyncio.ensure_future(anext(outcomes))
        while session.statistics().accepted < tasks:  # noqa: ASYNC110 # a listener would add work of its own
            await asyncio.sleep(0.1)
        submitting, without_gc = watch.longest, watch.longest_without_gc
        watch.reset()
        await asyncio.sleep(watched)
        polling = watch.longest
        waiting.cancel()
        await asyncio.wait([waiting])
    return {
        "stall_ms": round(1e3 * max(submitting, polling), 1),
        "stall_ms_without_gc": round(1e3 * without_gc, 1),
        "stall_ms_while_polling": round(1e3 * polling, 1),
        "tracked_objects": len(gc.get_objects()),
    }


async def _submit(session: KontextSession, handles: list[GenerationTask], until: int) -> None:
    while len(handles) < until:
        wave = min(WAVE, until - len(handles))
        handles += await asyncio.gather(*(session.submit(PROMPT) for _ in range(wave)))


def _divide_by_line(
    after: tracemalloc.Snapshot, before: tracemalloc.Snapshot, tasks: int, most: int = 15
) -> dict[str, float]:
    lines = sorted(after.compare_to(before, "lineno"), key=lambda each: -each.size_diff)[:most]
    return {f"{_shorten(line.traceback[0])}": round(line.size_diff / tasks, 1) for line in lines}


def _shorten(frame: tracemalloc.Frame) -> str:
    name = frame.filename.removeprefix(f"{ROOT}/").rpartition("site-packages/")[2]
    return f"{name}:{frame.lineno}"


def _count_objects(tasks: int) -> dict[str, float]:
    counted = Counter(type(each).__qualname__ for each in gc.get_objects())
    return {name: round(count / tasks, 2) for name, count in counted.most_common(20) if count > tasks / 2}


def main(what: str, address: str, tasks: int, steps: int, watched: float) -> dict[str, Any]:
    """Measure, and return the figures."""

    async def work(stopwatch: Stopwatch, watch: LoopWatch) -> dict[str, Any]:
        stopwatch.start()
        if what == "memory":
            return await measure_memory(address, tasks, steps)
        return await measure_stall(address, tasks, watched, watch)

    if what == "memory":
        tracemalloc.start()
    measured = measure_run(work)
    return {**measured.value, "seconds": round(measured.seconds, 2), "cpu": round(measured.cpu, 2)}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], **json.loads(sys.argv[2]))))
