"""Holds many tasks pending, in a process of its own.

``python -m benchmarks.pending keep|together JSON``, where the JSON has `address`, `tasks`, `steps` and `watched`
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

from benchmarks.measuring import run_measured, traced_memory
from benchmarks.serving import ROOT
from kontext_async import KontextSession, Limits, Settings

if TYPE_CHECKING:
    from benchmarks.measuring import LoopWatch, Stopwatch
    from kontext_async import GenerationTask

PROMPT = "a red fox in snow"
WAVE = 100
"""Submits at once, where the memory is measured."""


def session(address: str, tasks: int) -> KontextSession:
    return KontextSession("benchmark", base_url=address, settings=Settings(limits=Limits(max_in_flight=tasks)))


async def keep(address: str, tasks: int, steps: int) -> dict[str, Any]:
    """What stays of tasks that were submitted, in bytes each."""
    handles: list[GenerationTask] = []
    async with session(address, tasks) as opened:
        await _submit(opened, handles, WAVE)  # so that code, connections and caches are there
        warm, began = len(handles), traced_memory()
        before = tracemalloc.take_snapshot()
        curve = [(0, 0)]
        for step in range(1, steps + 1):
            await _submit(opened, handles, warm + step * (tasks - warm) // steps)
            curve.append((len(handles) - warm, traced_memory() - began))
        parts = _by_line(tracemalloc.take_snapshot(), before, tasks - warm)
        classes = _classes(tasks - warm)
        handles.clear()
        without = traced_memory() - began
        pending = opened.statistics().pending
    each = tasks - warm
    return {
        "curve": curve,
        "bytes_with_handles": round(curve[-1][1] / each, 1),
        "bytes_without_handles": round(without / each, 1),
        "bytes_by_line": parts,
        "objects_by_class": classes,
        "pending": pending,
    }


async def together(address: str, tasks: int, watched: float, watch: LoopWatch) -> dict[str, Any]:
    """How long the loop was held while all were submitted together, and afterwards while they are asked about."""
    async with session(address, tasks) as opened, aclosing(opened.generate_many([PROMPT] * tasks)) as outcomes:
        watch.restart()
        waiting = asyncio.ensure_future(anext(outcomes))
        while opened.statistics().accepted < tasks:  # noqa: ASYNC110 # a listener would be work, too
            await asyncio.sleep(0.1)
        submitting, besides = watch.longest, watch.longest_besides
        watch.restart()
        await asyncio.sleep(watched)
        polling = watch.longest
        waiting.cancel()
        await asyncio.wait([waiting])
    return {
        "stall_ms": round(1e3 * max(submitting, polling), 1),
        "stall_ms_besides_collector": round(1e3 * besides, 1),
        "stall_ms_while_polling": round(1e3 * polling, 1),
        "tracked_objects": len(gc.get_objects()),
    }


async def _submit(opened: KontextSession, handles: list[GenerationTask], until: int) -> None:
    while len(handles) < until:
        wave = min(WAVE, until - len(handles))
        handles += await asyncio.gather(*(opened.submit(PROMPT) for _ in range(wave)))


def _by_line(after: tracemalloc.Snapshot, before: tracemalloc.Snapshot, tasks: int, most: int = 15) -> dict[str, float]:
    lines = sorted(after.compare_to(before, "lineno"), key=lambda each: -each.size_diff)[:most]
    return {f"{_short(line.traceback[0])}": round(line.size_diff / tasks, 1) for line in lines}


def _short(frame: tracemalloc.Frame) -> str:
    name = frame.filename.removeprefix(f"{ROOT}/").rpartition("site-packages/")[2]
    return f"{name}:{frame.lineno}"


def _classes(tasks: int) -> dict[str, float]:
    counted = Counter(type(each).__qualname__ for each in gc.get_objects())
    return {name: round(count / tasks, 2) for name, count in counted.most_common(20) if count > tasks / 2}


def main(way: str, address: str, tasks: int, steps: int, watched: float) -> dict[str, Any]:
    """Measure, and return the figures."""

    async def work(stopwatch: Stopwatch, watch: LoopWatch) -> dict[str, Any]:
        stopwatch.start()
        return await (keep(address, tasks, steps) if way == "keep" else together(address, tasks, watched, watch))

    if way == "keep":
        tracemalloc.start()
    measured = run_measured(work)
    return {**measured.value, "seconds": round(measured.seconds, 2), "cpu": round(measured.cpu, 2)}


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], **json.loads(sys.argv[2]))))
