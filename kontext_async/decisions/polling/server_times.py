"""The duration of a task by the gateway's clock. Pure.

Only differences between the gateway's times are used, because the local clock may be off. A time is in seconds or in
milliseconds since the epoch, as its magnitude shows (PROTOCOL.md, "The task"), and is truncated to its unit: a task
that was created in second c and completed in second e took between e - c - 1 and e - c + 1 seconds.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from kontext_async.models import MILLISECONDS_FROM

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime
    from typing import Any

    from kontext_async.models import TaskStatus

__all__ = ["narrow", "server_duration"]

MAX_TRAVEL = 0.25
"""The seconds by which the gateway may count a task as older than the client does: the response had to travel back."""


def server_duration(status: TaskStatus) -> tuple[float, float] | None:
    """Return the least and most seconds that a task took by the gateway's clock; None if the status lacks a time."""
    completed = _completed_at(status.metadata)
    if completed is None or status.created_at is None:
        return None
    end, end_unit = completed
    begin, begin_unit = _created_at(status.created_at)
    took = end - begin
    return None if took < 0 else (max(0.0, took - begin_unit), took + end_unit)


def narrow(begin: float, end: float, status: TaskStatus) -> tuple[float, float]:
    """Narrow the interval from `begin` to `end`, the ages between which a task ended, by the gateway's clock.

    Where the two contradict each other, the local observation counts.

    Returns:
        The least and the most age at the end, in seconds.
    """
    took = server_duration(status)
    if took is None:
        return begin, end
    least, most = max(begin, took[0] - MAX_TRAVEL), min(end, took[1])
    return (least, most) if least < most else (begin, end)


def _completed_at(metadata: Mapping[str, Any]) -> tuple[float, float] | None:
    """Return the time of completion and its unit, both in seconds; None if there is no usable time."""
    value = metadata.get("completed_at")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    if not math.isfinite(seconds) or seconds <= 0:
        return None
    if seconds >= MILLISECONDS_FROM:
        return seconds / 1000, 0.001
    return seconds, 1.0 if seconds.is_integer() else 0.001


def _created_at(time: datetime) -> tuple[float, float]:
    """Return the time of creation and its unit, both in seconds."""
    return time.timestamp(), 0.001 if time.microsecond else 1.0
