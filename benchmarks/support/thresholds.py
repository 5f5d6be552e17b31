"""Compares measured figures with their limits."""

from __future__ import annotations

__all__ = ["check_threshold"]


def check_threshold(what: str, value: float, limit: float, unit: str = "") -> dict[str, object]:
    """Return one line of the results: the value may be at most the limit."""
    return {"what": what, "value": value, "limit": limit, "unit": unit, "met": value <= limit}
