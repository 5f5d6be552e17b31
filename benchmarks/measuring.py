"""How things are measured: CPU time of this process, how long the loop was held, memory, and medians of runs."""

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
    "LoopWatch",
    "Measured",
    "Stopwatch",
    "interleaved",
    "machine",
    "median_of",
    "median_ratio",
    "run_measured",
    "traced_memory",
]

T = TypeVar("T")


class LoopWatch(selectors.DefaultSelector):
    """A selector that knows how long the loop was away from it: nothing else can run in such a turn.

    It costs two looks at the clock per turn, where a timer that ticks would wake the loop for itself.

    Attributes:
        longest: Seconds of the longest turn.
        longest_besides: The same without the time in which Python collected garbage.
        turns: How many there were.
    """

    def __init__(self) -> None:
        super().__init__()
        self.longest = self.longest_besides = 0.0
        self.turns = 0
        self._since: float | None = None
        self._collecting_since = self._collected = 0.0

    def collecting(self, phase: str, _: dict[str, int]) -> None:
        """What `gc.callbacks` are told."""
        now = time.perf_counter()
        if phase == "start":
            self._collecting_since = now
        else:
            self._collected += now - self._collecting_since

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if self._since is not None:
            turn = time.perf_counter() - self._since
            self.longest = max(self.longest, turn)
            self.longest_besides = max(self.longest_besides, turn - self._collected)
            self.turns += 1
        ready = super().select(timeout)
        self._since, self._collected = time.perf_counter(), 0.0
        return ready

    def restart(self) -> None:
        """Forget what was."""
        self.longest = self.longest_besides = 0.0
        self.turns = 0


@define
class Stopwatch:
    """Wall and CPU time since it was started."""

    began: float = 0.0
    cpu_began: float = 0.0
    seconds: float = 0.0
    cpu: float = 0.0

    def start(self) -> None:
        """Begin."""
        self.began, self.cpu_began = time.perf_counter(), time.process_time()

    def stop(self) -> None:
        """Take the time."""
        self.seconds, self.cpu = time.perf_counter() - self.began, time.process_time() - self.cpu_began


@frozen(kw_only=True)
class Measured:
    """What a coroutine took.

    Attributes:
        value: What it returned.
        seconds: Wall time.
        cpu: Seconds of CPU of the whole process.
        stall: Seconds for which the loop was held at most.
        turns: Of the loop.
    """

    value: Any
    seconds: float
    cpu: float
    stall: float
    turns: int


def run_measured(work: Callable[[Stopwatch, LoopWatch], Coroutine[Any, Any, Any]]) -> Measured:
    """Run `work` on a loop that is watched; it starts the stopwatch when it is ready, and may stop it itself."""
    watch = LoopWatch()
    stopwatch = Stopwatch()
    gc.callbacks.append(watch.collecting)
    try:
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(watch)) as runner:
            stopwatch.start()
            value = runner.run(work(stopwatch, watch))
            if not stopwatch.seconds:
                stopwatch.stop()
    finally:
        gc.callbacks.remove(watch.collecting)
    return Measured(value=value, seconds=stopwatch.seconds, cpu=stopwatch.cpu, stall=watch.longest, turns=watch.turns)


def interleaved(contenders: Mapping[str, Callable[[], T]], rounds: int) -> dict[str, list[T]]:
    """Let all contenders run in turn, `rounds` times, so that whatever disturbs the machine disturbs all of them."""
    runs: dict[str, list[T]] = {name: [] for name in contenders}
    names = list(contenders)
    for turn in range(rounds):
        for name in names if turn % 2 == 0 else reversed(names):
            runs[name].append(contenders[name]())
    return runs


def median_of(values: list[float]) -> float:
    """The median, rounded to what can be told apart."""
    return float(f"{statistics.median(values):.4g}")


def median_ratio(ours: list[float], theirs: list[float]) -> float:
    """The median of the ratios of the runs that stood side by side."""
    return median_of([one / other for one, other in zip(ours, theirs, strict=True)])


def traced_memory() -> int:
    """Bytes that `tracemalloc` knows of, after a collection."""
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def machine() -> dict[str, object]:
    """Where and when it was measured."""
    packages = ("aiohttp", "anyio", "attrs", "cattrs", "kontext_async")
    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2) if sys.platform != "win32" else None,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {name: _version(name) for name in packages},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
