"""The result of cancelling a task, as a value."""

from __future__ import annotations

import enum
from decimal import Decimal  # noqa: TC003 # typing.get_type_hints resolves it

from attrs import frozen

from kontext_async.models import TaskStatus  # noqa: TC001 # as above

__all__ = ["CancelOutcome", "Cancellation"]


class Cancellation(enum.Enum):
    """The result of cancelling a task."""

    IN_TIME = "in time"
    """The task is cancelled: it has ended without an image."""
    TOO_LATE = "too late"
    """The task ended before, with an image or with another error."""
    UNKNOWN = "unknown"
    """The task is not finished, as far as the gateway said; it may still be cancelled."""


@frozen(kw_only=True)
class CancelOutcome:
    """The result of cancelling a task, with what is known of its cost.

    Attributes:
        task_id: The task ID.
        reference: The text of the reference that leads to the task again.
        cancellation: Whether it was in time.
        status: The last known status; None if there is none.
        cost: USD billed for the task, as far as the gateway stated it; None if it did not.
        may_be_charged: True if the gateway has billed the task, or may have.
    """

    task_id: str
    reference: str
    cancellation: Cancellation
    status: TaskStatus | None = None
    cost: Decimal | None = None
    may_be_charged: bool = True
