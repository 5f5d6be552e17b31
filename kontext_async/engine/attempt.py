"""One attempt to send a create request, and its result."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeAlias

from attrs import define, field

from kontext_async.decisions.resend import AttemptOutcome, outcome_of_loss
from kontext_async.engine.task_record import TaskRecord
from kontext_async.errors import GatewayUnavailable, KontextError

if TYPE_CHECKING:
    from typing import Self

    from kontext_async.decisions.transport_failures import TransportFailure
    from kontext_async.engine.slots import Slot
    from kontext_async.engine.submission import Submission
    from kontext_async.engine.transport import TransportError
    from kontext_async.engine.uploads import RequestImages, Upload
    from kontext_async.gateways import GatewayRequest

__all__ = ["Attempt", "AttemptResult", "FailedAttempt"]


@define
class FailedAttempt:
    """An attempt that the gateway did not accept, or may have accepted."""

    outcome: AttemptOutcome
    error: KontextError
    retry_after: float | None = None
    failure: TransportFailure | None = None

    @classmethod
    def by_transport(cls, lost: TransportError) -> Self:
        """Return the failed attempt that a failure of the transport stands for."""
        error = GatewayUnavailable(f"no response to a create request: {lost}")
        error.__cause__ = lost.__cause__
        error.retryable = not lost.kind.lasts
        outcome = AttemptOutcome.REJECTED if lost.kind.lasts else outcome_of_loss(handed_over=lost.handed_over)
        return cls(outcome, error, failure=lost.kind)


AttemptResult: TypeAlias = TaskRecord | FailedAttempt | KontextError


@define(eq=False)
class Attempt:
    """One attempt, and what it holds.

    Attributes:
        submission: The submission.
        outgoing: The request in the dialect of the gateway.
        upload: Its body on its way.
        images: The images of the body: the caller may leave while the request is in flight.
        slot: The slot, unless the accepted task has it.
        done: The result, for the caller; cancelled if the caller has left.
        task: The asyncio task; None until it is created.
        has_begun: True once its first step is taken.
    """

    submission: Submission
    outgoing: GatewayRequest
    upload: Upload
    images: RequestImages
    slot: Slot
    done: asyncio.Future[AttemptResult]
    task: asyncio.Task[None] | None = field(default=None, init=False)
    has_begun: bool = field(default=False, init=False)
    _is_cancelled: bool = field(default=False, init=False)

    def cancel(self) -> None:
        """Cancel the task. asyncio would never run one that is cancelled before its first step: this one ends in it."""
        if self.task and self.has_begun:
            self.task.cancel()
        else:
            self._is_cancelled = True

    def begin(self) -> None:
        """Take the first step.

        Raises:
            asyncio.CancelledError: It is cancelled already.
        """
        self.has_begun = True
        if self._is_cancelled:
            raise asyncio.CancelledError
