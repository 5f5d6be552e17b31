"""Measures the peak memory of a block, as the kernel counts it: buffers of C libraries are included. Linux."""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["PeakMemory"]

STATUS = Path("/proc/self/status")
RESET_PEAK = "5"
"""The value that makes ``/proc/self/clear_refs`` reset the peak: proc(5)."""


class PeakMemory:
    """The peak of the resident memory inside of a ``with`` block, above the memory before it.

    Attributes:
        megabytes: The difference, in MiB; 0 until the block ends.
    """

    megabytes = 0.0

    def __enter__(self) -> Self:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # memory that is free but resident would hide new allocations
        Path("/proc/self/clear_refs").write_text(RESET_PEAK, encoding="ascii")
        self._before = _read_kilobytes("VmRSS")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.megabytes = (_read_kilobytes("VmHWM") - self._before) / 1024


def _read_kilobytes(name: str) -> int:
    line = next(line for line in STATUS.read_text(encoding="ascii").splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1])
