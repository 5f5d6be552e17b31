"""Measures a run: CPU time of this process, wall time, blocked turns of the loop, traced memory, medians of runs."""

from __future__ import annotations

import asyncio
import gc
import os
import platform
import selectors
import statistics
import sys
import time
import tracemalloc
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, TypeVar

from attrs import define, frozen

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping

__all__ = [
    "CpuLoopWatch",
    "LoopWatch",
    "Measurement",
    "Stopwatch",
    "compute_median",
    "compute_median_ratio",
    "describe_machine",
    "measure_cpu_per_request",
    "measure_run",
    "measure_traced_memory",
    "run_interleaved",
]

T = TypeVar("T")


class LoopWatch(selectors.DefaultSelector):
    """A selector that measures each turn of the loop; nothing else can run during a turn.

    It reads the clock twice per turn. A timer would wake the loop only to measure it.

    Attributes:
        longest: Seconds of the longest turn.
        longest_without_gc: The same, without the time that Python spent collecting garbage.
        turns: How many turns there were.
    """

    def __init__(self) -> None:
        super().__init__()
        self.longest = self.longest_without_gc = 0.0
        self.turns = 0
        self._turn_began: float | None = None
        self._gc_began = self._gc_seconds = 0.0

    def on_gc(self, phase: str, _: dict[str, int]) -> None:
        """Record the start or the end of a collection; a callback for `gc.callbacks`."""
        now = time.perf_counter()
        if phase == "start":
            self._gc_began = now
        else:
            self._gc_seconds += now - self._gc_began

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self._turn_began is not None:
            turn = time.perf_counter() - self._turn_began
            self.longest = max(self.longest, turn)
            self.longest_without_gc = max(self.longest_without_gc, turn - self._gc_seconds)
            self.turns += 1
        ready = super().select(timeout)
        self._turn_began, self._gc_seconds = time.perf_counter(), 0.0
        return ready

    def reset(self) -> None:
        """Discard all measured turns."""
        self.longest = self.longest_without_gc = 0.0
        self.turns = 0


class CpuLoopWatch(LoopWatch):
    """A selector that also measures the CPU of each turn: other processes may use the machine, too.

    Attributes:
        longest_cpu: Seconds of CPU of the turn that took the most.
    """

    def __init__(self) -> None:
        super().__init__()
        self.longest_cpu = 0.0
        self._cpu_began = time.thread_time()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.longest_cpu = max(self.longest_cpu, time.thread_time() - self._cpu_began)
        ready = super().select(timeout)
        self._cpu_began = time.thread_time()
        return ready

    def reset(self) -> None:
        super().reset()
        self.longest_cpu = 0.0


@define
class Stopwatch:
    """Wall time and CPU time between `start` and `stop`, in seconds."""

    began: float = 0.0
    cpu_began: float = 0.0
    seconds: float = 0.0
    cpu: float = 0.0

    def start(self) -> None:
        """Start measuring."""
        self.began, self.cpu_began = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """Record the time since `start`."""
        self.seconds, self.cpu = time.perf_counter() - self.began, time.process_time() - self.cpu_began


@frozen(kw_only=True)
class Measurement:
    """The result and the cost of one coroutine.

    Attributes:
        value: Its result.
        seconds: Wall time.
        cpu: Seconds of CPU of the whole process.
        stall: Seconds of the longest turn of the loop.
        turns: Turns of the loop.
    """

    value: Any
    seconds: float
    cpu: float
    stall: float
    turns: int


def measure_run(work: Callable[[Stopwatch, LoopWatch], Coroutine[Any, Any, Any]]) -> Measurement:
    """Run `work` on a watched loop. It may start the stopwatch again when it is ready, and stop it early."""
    watch = LoopWatch()
    stopwatch = Stopwatch()
    gc.callbacks.append(watch.on_gc)
    try:
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(watch)) as runner:
            stopwatch.start()
            value = runner.run(work(stopwatch, watch))
            if not stopwatch.seconds:
                stopwatch.stop()
    finally:
        gc.callbacks.remove(watch.on_gc)
    return Measurement(
        value=value, seconds=stopwatch.seconds, cpu=stopwatch.cpu, stall=watch.longest, turns=watch.turns
    )


def measure_cpu_per_request(work: Callable[..., Coroutine[Any, Any, int]], *args: object) -> float:
    """Return the microseconds of CPU of one request of `work`, which takes a stopwatch and `args`, and counts them."""

    def work_with_stopwatch(stopwatch: Stopwatch, _: LoopWatch) -> Coroutine[Any, Any, int]:
        return work(stopwatch, *args)

    measured = measure_run(work_with_stopwatch)
    return measured.cpu * 1e6 / max(1, int(measured.value))


def run_interleaved(candidates: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Run all candidates in turn, `rounds` times, so that a disturbance of the machine affects all of them."""
    runs: dict[str, list[T]] = {name: [] for name in candidates}
    names = list(candidates)
    for turn in range(rounds):
        for name in names if turn % 2 == 0 else reversed(names):
            runs[name].append(candidates[name]())
    return runs


def compute_median(values: list[float]) -> float:
    """Return the median, rounded to four significant digits."""
    return float(f"{statistics.median(values):.4g}")


def compute_median_ratio(ours: list[float], theirs: list[float]) -> float:
    """Return the median of the ratios of the runs that ran side by side."""
    return compute_median([one / other for one, other in zip(ours, theirs, strict=True)])


def measure_traced_memory() -> int:
    """Collect garbage, and return the bytes that `tracemalloc` traces."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def describe_machine() -> dict[str, object]:
    """Return where and when the measurement ran."""
    packages = ("aiohttp", "anyio", "attrs", "cattrs", "kontext_async")
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if sys.platform != "win32" else None,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: _find_version(name) for name in packages},
    }


def _find_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
