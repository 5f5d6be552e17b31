"""The time since the machine was started, also while it slept or this process was stopped.

`time.monotonic` may stand still while a machine sleeps; a lease at a store does not. macOS and Windows have no
``CLOCK_BOOTTIME``: there it is `time.monotonic`. No clock sees that a virtual machine was paused.
"""

from __future__ import annotations

import time
from pathlib import Path

__all__ = ["boot_id", "boot_time"]

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def boot_time() -> float:
    """Return the seconds since the machine was started."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


def boot_id() -> str:
    """Return a text that names this start of the machine; an empty one where the system has none."""
    try:
        return BOOT_ID.read_text("ascii").strip()
    except (OSError, ValueError):
        return ""
