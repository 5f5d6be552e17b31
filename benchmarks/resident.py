"""How much memory a process takes at its peak: what the kernel counts, buffers of C libraries and all. Linux."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path
from types import TracebackType  # noqa: TC003 # it is read here, and nowhere else
from typing import Self

__all__ = ["Peak"]

STATUS = Path("/proc/self/status")
RESET_PEAK = "5"
"""What ``/proc/self/clear_refs`` takes to forget the peak: proc(5)."""


class Peak:
    """The most memory that was resident inside of a ``with`` block, above what was before.

    Attributes:
        megabytes: That.
    """

    megabytes = 0.0

    def __enter__(self) -> Self:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what is free must not hide what is taken
        Path("/proc/self/clear_refs").write_text(RESET_PEAK, encoding="ascii")
        self._before = _kilobytes("VmRSS")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.megabytes = (_kilobytes("VmHWM") - self._before) / 1024


def _kilobytes(name: str) -> int:
    line = next(line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])
