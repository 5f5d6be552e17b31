"""What must be shown, and whether a measurement shows it."""

from __future__ import annotations

__all__ = ["goal"]


def goal(what: str, value: float, limit: float, unit: str = "") -> dict[str, object]:
    """One line of the account: the value shall be at most the limit."""
    return {"what": what, "value": value, "limit": limit, "unit": unit, "reached": value <= limit}
