"""Records one submission in a row of the store, on behalf of the scheduler."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from attrs import define, evolve, field

from kontext_async.errors import InvalidRequest, KontextError
from kontext_async.store.records import error_to_dict
from kontext_async.store.states import advance
from kontext_async.store.steps import Accepted, Intended, Resubmitted, State, Uncertain, Verdict, Withdrawn

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal

    from kontext_async.engine.flight import Followed
    from kontext_async.errors import SubmissionUncertain
    from kontext_async.store.rows import NewRow, Row
    from kontext_async.store.worker import Worker

__all__ = ["LeaseExpired", "NotSubmitted", "OverLimit", "RowJournal", "RowTaken"]


class NotSubmitted(KontextError):
    """The store does not let this session submit the request now. Internal: it never reaches a user."""


class RowTaken(NotSubmitted):
    """The row belongs to another worker, or was changed by one. Internal.

    Attributes:
        row: The row as it is now; None if it is gone.
    """

    def __init__(self, row: Row | None) -> None:
        self.row = row
        super().__init__("another worker has taken the request")


class OverLimit(NotSubmitted):
    """The cost limit of the run does not admit the request. Internal.

    Attributes:
        committed: USD that the run has spent or may owe.
    """

    def __init__(self, committed: Decimal) -> None:
        self.committed = committed
        super().__init__(f"the cost limit does not admit the request: {committed} USD are spent or reserved")


class LeaseExpired(NotSubmitted):
    """The process was stopped for so long that others may regard it as dead. Nothing was sent. Internal."""


@define(eq=False)
class RowJournal:
    """Records one submission in a row. It implements `SubmissionJournal`.

    Attributes:
        worker: The session's worker at the store.
        known_row: The row as it was last known; None before it is created.
        new: The request whose row is created with its first attempt; None where the row exists.
        run: The number of the run of a new row.
        fingerprint: The fingerprint that the request must have; None if its images cannot change.
        on_intent: Is called before an attempt is recorded; it may raise to keep the request from being sent, and
            returns the amount in USD to reserve and the limit of the run.
        on_accepted: Is called once the gateway has accepted the task, with its ID and with the row as it was before.
        followed: What `on_accepted` returned.
    """

    worker: Worker
    _row: Row | None = field(alias="row")
    new: NewRow | None = None
    run: int = 0
    fingerprint: str | None = None
    on_intent: Callable[[], tuple[Decimal | None, Decimal | None]] | None = None
    on_accepted: Callable[[Row, str], Followed] | None = None
    followed: Followed | None = field(default=None, init=False)
    _is_intended: bool = field(default=False, init=False)
    _accepted: Accepted | None = field(default=None, init=False)
    """The step that `_row` does not show yet: few ask for a row once its task is accepted."""

    @property
    def known_row(self) -> Row | None:
        """The row as it was last known; None before it is created."""
        if self._row and self._accepted:
            self._row, self._accepted = advance(self._row, self._accepted, self.worker.number), None
        return self._row

    @property
    def row(self) -> Row:
        """The row as it was last known, once there is one.

        Raises:
            LookupError: It is not created yet.
        """
        row = self.known_row
        if row is None:
            raise LookupError("the row is not created yet")
        return row

    async def before_send(self, fingerprint: str, attempt: int) -> None:  # noqa: ARG002 # the row counts all attempts
        """Record that a create request is about to be sent.

        Raises:
            NotSubmitted: The request must not be sent by this session now.
            InvalidRequest: An input image changed since it was read.
            StoreUnavailable: The step could not be written.
        """
        if self.fingerprint is not None and fingerprint != self.fingerprint:
            raise InvalidRequest("input_images", "an input image", "it must not change before it is sent")
        if self.new:
            await self._begin(self.new)
            return
        if self.row.state is State.UNCERTAIN:  # `Retries.resend_uncertain` sends it again
            self._take(
                Resubmitted(
                    attempt=self.row.attempt,
                    uncertain_attempts=self.row.uncertain_attempts + 1,
                    reserved=self.row.reserved,
                )
            )
        reserved, limit = self.on_intent() if self.on_intent else (None, None)
        step = Intended(
            attempt=self.row.attempt + 1, account=self.worker.account, at=time.time(), reserved=reserved, limit=limit
        )
        # if the wait is ended, the worker withdraws what it has written: a step of ours could hit another worker's
        result = await self.worker.write(self.row, step)
        if result.verdict is Verdict.OVER_LIMIT and result.committed is not None:
            raise OverLimit(result.committed)
        if result.verdict not in (Verdict.APPLIED, Verdict.REPEATED):
            raise RowTaken(result.row)
        self._row = advance(self.row, step, self.worker.number)
        self._is_intended = True

    async def _begin(self, new: NewRow) -> None:
        """Create the row with its first attempt."""
        begun = evolve(new, intended=self.worker.first_attempt())
        row = await self.worker.begin(self.run, begun)
        if not begun.has_begun(row, self.worker.number):
            raise RowTaken(row)
        self._row, self.new, self._is_intended = row, None, True

    def check_before_first_byte(self) -> None:
        """Check that this worker was alive a moment ago: another one may have taken over the row meanwhile.

        Raises:
            LeaseExpired: It was not; nothing was sent.
        """
        if not self.worker.is_fresh():
            raise LeaseExpired("the process was stopped before the request was sent")

    async def accepted(self, task_id: str, reference: str | None) -> None:
        """Record the task ID, and the reference where there is one, before anything else happens."""
        self._is_intended = False
        row = self.row
        step = self._accepted = Accepted(attempt=row.attempt, task_id=task_id, reference=reference, at=time.time())
        if self.on_accepted:
            self.followed = self.on_accepted(row, task_id)
        await self.worker.write(row, step)

    def not_accepted(self) -> None:
        """Record that the create request was not accepted: the row is free again."""
        if self._is_intended:
            self._is_intended = False
            self._take(Withdrawn(attempt=self.row.attempt))

    def uncertain(self, error: SubmissionUncertain) -> None:
        """Record that the gateway may have accepted the create request."""
        self._is_intended = False
        self._take(Uncertain(attempt=self.row.attempt, error=error_to_dict(error)))

    def _take(self, step: Withdrawn | Uncertain | Resubmitted) -> None:
        row = self.row
        self.worker.note(row, step)
        self._row = advance(row, step, self.worker.number)
