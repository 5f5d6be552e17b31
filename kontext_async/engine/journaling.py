"""What is told of a submission step by step, by whoever keeps a journal: each step before the next is taken."""

from __future__ import annotations

from typing import Protocol

__all__ = ["SubmissionJournal"]


class SubmissionJournal(Protocol):
    """Keeps the account of one submission, durably. The scheduler awaits each step.

    A create of which `intend` was told, and neither `withdrawn` nor `accepted`, is one of which nobody knows whether
    it was accepted.
    """

    async def intend(self, fingerprint: str, attempt: int) -> None:
        """A create request is about to go out; not a byte of it does before this returns.

        Args:
            fingerprint: The request's, with the contents of its images as they are sent.
            attempt: Which attempt this is, from 1.

        Raises:
            KontextError: It shall not go out; nothing is sent, and the submission ends with this error.
        """
        ...

    async def accepted(self, task_id: str) -> None:
        """The gateway has accepted the create. Awaited in a task of the session's, also when the caller has gone.

        Must not raise: the task is paid for, whatever becomes of its account.
        """
        ...

    def withdrawn(self) -> None:
        """The create was certainly not accepted; it may go out again, which `intend` is told of anew."""
        ...
