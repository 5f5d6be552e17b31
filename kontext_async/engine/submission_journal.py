"""The interface of a journal that records a submission, each step before the next one is taken."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from kontext_async.errors import SubmissionUncertain

__all__ = ["SubmissionJournal"]


class SubmissionJournal(Protocol):
    """Records one submission durably. The scheduler awaits each step.

    Every attempt that `before_send` recorded ends with exactly one of `accepted`, `not_accepted` and `uncertain`.
    """

    async def before_send(self, fingerprint: str, attempt: int) -> None:
        """Record that a create request is about to be sent; its first byte goes out after this returns.

        Args:
            fingerprint: The request's fingerprint, with the contents of its images as they are sent.
            attempt: The number of the attempt, from 1.

        Raises:
            KontextError: The request must not be sent; the submission ends with this error.
        """
        ...

    def check_before_first_byte(self) -> None:
        """Check once more that the request may be sent: a process may have been stopped since `before_send`.

        Raises:
            KontextError: The request must not be sent; nothing was sent, and the submission ends with this error.
        """
        ...

    async def accepted(self, task_id: str, reference: str | None) -> None:
        """Record that the gateway accepted the task. Awaited in a task of the session, even after the caller left.

        Must not raise: the task is billed whether or not it is recorded.

        Args:
            task_id: The task ID.
            reference: The text that leads to the task again, where the ID alone does not; None where it does.
        """
        ...

    def not_accepted(self) -> None:
        """Record that the create request was not accepted. It may be retried; `before_send` is then called again."""
        ...

    def uncertain(self, error: SubmissionUncertain) -> None:
        """Record that the gateway may have accepted the create request. If it is resent, `before_send` is called."""
        ...
