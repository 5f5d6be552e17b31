"""The figures that a progress display shows. Pure."""

from __future__ import annotations

from decimal import Decimal  # noqa: TC003 # attrs resolves it

from attrs import frozen

__all__ = ["ProgressCounts"]


@frozen(kw_only=True)
class ProgressCounts:
    """The current figures of a command.

    Attributes:
        completed: Requests that are done, including skipped ones.
        failed: Requests that failed or are uncertain.
        in_flight: Requests that are submitted and not done.
        spent: USD spent.
        skipped: Requests that were done before the command started.
    """

    completed: int
    failed: int
    in_flight: int
    spent: Decimal
    skipped: int = 0

    def rate(self, seconds: float) -> float:
        """Return the requests completed per second; skipped ones do not count."""
        return (self.completed - self.skipped) / seconds
