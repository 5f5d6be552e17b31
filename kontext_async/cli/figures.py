"""The figures that are shown while a command runs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from decimal import Decimal

__all__ = ["Figures", "rate_of"]


class Figures(Protocol):
    """What is shown: a session's statistics have it, and a durable run's progress."""

    @property
    def completed(self) -> int:
        """Requests that are done."""
        ...

    @property
    def failed(self) -> int:
        """Requests that are not, and will not be."""
        ...

    @property
    def in_flight(self) -> int:
        """Requests under way."""
        ...

    @property
    def spent(self) -> Decimal:
        """USD."""
        ...


def rate_of(figures: Figures, seconds: float) -> float:
    """Requests a second; those that were there from the beginning do not count."""
    return (figures.completed - getattr(figures, "skipped", 0)) / seconds
