"""Where CPU time goes: a signal per millisecond takes down which Python code is running. Main thread, Unix."""

from __future__ import annotations

import signal
import sysconfig
from collections import Counter
from typing import TYPE_CHECKING

from benchmarks.serving import ROOT

if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import Self

__all__ = ["Sampler"]

EVERY = 0.001
"""Seconds of CPU between two samples; many kernels make it 4 ms."""

STANDARD = sysconfig.get_path("stdlib")
PACKAGES = sysconfig.get_path("purelib")


class Sampler:
    """Samples while it is entered; C code counts for the Python function that called it.

    Attributes:
        samples: How many there are.
    """

    def __init__(self) -> None:
        self.samples = 0
        self._own: Counter[str] = Counter()
        self._within: Counter[str] = Counter()
        self._packages: Counter[str] = Counter()

    def __enter__(self) -> Self:
        self._previous = signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, EVERY, EVERY)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, self._previous)

    def shares(self, whole: float, most: int = 40) -> dict[str, dict[str, float]]:
        """`whole` divided among packages, functions by themselves, and functions with all that they call."""
        counted = {"packages": self._packages, "functions": self._own, "functions_inclusive": self._within}
        each = whole / max(1, self.samples)
        return {
            name: {key: round(count * each, 2) for key, count in counter.most_common(most)}
            for name, counter in counted.items()
        }

    def _sample(self, _: int, frame: FrameType | None) -> None:
        if frame is None:
            return
        self.samples += 1
        self._packages[_package(frame.f_code.co_filename)] += 1
        self._own[_name(frame)] += 1
        above: set[str] = set()
        walk: FrameType | None = frame
        while walk:
            above.add(_name(walk))
            walk = walk.f_back
        self._within.update(above)


def _name(frame: FrameType) -> str:
    code = frame.f_code
    return f"{_short(code.co_filename)}:{code.co_firstlineno} {code.co_qualname}"


def _short(filename: str) -> str:
    for folder in (str(ROOT), PACKAGES, STANDARD):
        filename = filename.removeprefix(f"{folder}/")
    return filename


def _package(filename: str) -> str:
    short = _short(filename)
    if short.startswith("<attrs"):
        return "kontext_async"
    parts = short.split("/")
    return "/".join(parts[:2]) if parts[0] == "kontext_async" else parts[0]
