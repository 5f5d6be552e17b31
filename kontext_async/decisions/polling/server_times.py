"""How long a task took by the gateway's own clock. Pure.

Only differences of the gateway's times are used: the clock here may be off. A time is in seconds or in milliseconds
since the epoch, which its size tells (PROTOCOL.md, "Answers"), and is cut off at its unit: a task that was created in
second c and completed in second e took between e - c - 1 and e - c + 1 seconds.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from typing import Any

    from kontext_async.models import TaskStatus

__all__ = ["narrow", "server_duration"]

MILLISECONDS = 1e11
"""From this size on, a time since the epoch is in milliseconds: as seconds it would be in the year 5138."""

TRAVEL = 0.25
"""Seconds by which a task may be older for the gateway than here: its acceptance travelled back."""


def server_duration(status: TaskStatus) -> tuple[float, float] | None:
    """The seconds that a task took at least and at most by the gateway's clock; None where it does not say."""
    completed = _completed_at(status.metadata)
    if completed is None or status.created_at is None:
        return None
    end, end_unit = completed
    begin, begin_unit = _created_at(status.created_at)
    took = end - begin
    return None if took < 0 else (max(0.0, took - begin_unit), took + end_unit)


def narrow(begin: float, end: float, status: TaskStatus) -> tuple[float, float]:
    """What is known of the age at which a task ended: between `begin` and `end`, and by the gateway's clock.

    Where the two contradict each other, what was seen here counts.
    """
    took = server_duration(status)
    if took is None:
        return begin, end
    least, most = max(begin, took[0] - TRAVEL), min(end, took[1])
    return (least, most) if least < most else (begin, end)


def _completed_at(metadata: Mapping[str, Any]) -> tuple[float, float] | None:
    """The time in seconds, and its unit in seconds."""
    value = metadata.get("completed_at")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    if not math.isfinite(seconds) or seconds <= 0:
        return None
    if seconds >= MILLISECONDS:
        return seconds / 1000, 0.001
    return seconds, 1.0 if seconds.is_integer() else 0.001


def _created_at(time: datetime) -> tuple[float, float]:
    return time.timestamp(), 0.001 if time.microsecond else 1.0
