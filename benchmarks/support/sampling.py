"""Samples where CPU time is spent: a signal per millisecond records which Python code runs. Main thread, Unix."""

from __future__ import annotations

import signal
import sysconfig
from collections import Counter
from typing import TYPE_CHECKING

from benchmarks.support.server_process import ROOT

if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import Self

__all__ = ["Sampler"]

SAMPLE_INTERVAL = 0.001
"""Seconds of CPU between two samples; many kernels round it up to 4 ms."""

STANDARD_LIBRARY = sysconfig.get_path("stdlib")
SITE_PACKAGES = sysconfig.get_path("purelib")


class Sampler:
    """A profiler that samples inside of a ``with`` block; C code counts for the Python function that called it.

    Attributes:
        samples: How many samples there are.
    """

    def __init__(self) -> None:
        self.samples = 0
        self._own: Counter[str] = Counter()
        self._inclusive: Counter[str] = Counter()
        self._packages: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self._previous = signal.signal(signal.SIGPROF, self._record_sample)
        signal.setitimer(signal.ITIMER_PROF, SAMPLE_INTERVAL, SAMPLE_INTERVAL)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, self._previous)

    def divide(self, total: float, most: int = 40) -> dict[str, dict[str, float]]:
        """Divide `total` among packages, among functions, and among functions including everything they call."""
        counters = {"packages": self._packages, "functions": self._own, "functions_inclusive": self._inclusive}
        per_sample = total / max(1, self.samples)
        return {
            name: {key: round(count * per_sample, 2) for key, count in counter.most_common(most)}
            for name, counter in counters.items()
        }

    def _record_sample(self, _: int, frame: FrameType | None) -> None:
        if frame is None:
            return
        self.samples += 1
        self._packages[_package_of(frame.f_code.co_filename)] += 1
        self._own[_function_of(frame)] += 1
        stack: set[str] = set()
        caller: FrameType | None = frame
        while caller:
            stack.add(_function_of(caller))
            caller = caller.f_back
        self._inclusive.update(stack)


def _function_of(frame: FrameType) -> str:
    code = frame.f_code
    return f"{_shorten(code.co_filename)}:{code.co_firstlineno} {code.co_qualname}"


def _shorten(filename: str) -> str:
    for folder in (str(ROOT), SITE_PACKAGES, STANDARD_LIBRARY):
        filename = filename.removeprefix(f"{folder}/")
    return filename


def _package_of(filename: str) -> str:
    short = _shorten(filename)
    if short.startswith("<attrs"):
        return "kontext_async"
    parts = short.split("/")
    return "/".join(parts[:2]) if parts[0] == "kontext_async" else parts[0]
