"""Records one submission in the journal, on behalf of the session's scheduler."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from attrs import define

from kontext_async.bulk.errors import JournalFailed
from kontext_async.bulk.states import State
from kontext_async.errors import InvalidRequest

if TYPE_CHECKING:
    import anyio

    from kontext_async.bulk.entries import JournalRow
    from kontext_async.bulk.errands import Errands

__all__ = ["RowJournal"]


@define(eq=False)
class RowJournal:
    """Records one submission in the run's journal. It implements `SubmissionJournal`.

    Attributes:
        errands: What the run knows.
        row: The row of the request.
        scope: Is cancelled if the request must not be sent again.
        on_wire: True while a create request is in flight.
    """

    errands: Errands
    row: JournalRow
    scope: anyio.CancelScope
    on_wire: bool = False

    async def before_send(self, fingerprint: str, attempt: int) -> None:  # noqa: ARG002 # the row counts the attempts of all runs
        """Record that a create request is about to be sent.

        Raises:
            RunStopped: The request must not be sent.
            InvalidRequest: An input image changed since it was read.
            JournalFailed: The step could not be written.
        """
        row = self.row
        self.errands.check_submitting()
        if fingerprint != row.fingerprint:
            raise InvalidRequest("input_images", "an input image", "it must not change during the run")
        row.doubtful += row.state is State.INTENT
        row.attempts += 1
        row.state = State.INTENT
        try:
            await self.errands.journal.commit(
                row.id,
                state=row.state,
                attempts=row.attempts,
                doubtful=row.doubtful,
                intended_at=time.time(),
                error=None,
            )
        except JournalFailed as error:
            row.state = State.PLANNED
            self.errands.halt(error)
            raise
        self.on_wire = True
        self.errands.check_submitting()

    async def accepted(self, task_id: str) -> None:
        """Record the task ID before anything else happens."""
        row = self.row
        self.on_wire = False
        row.state, row.task_id, row.accepted_at = State.ACCEPTED, task_id, time.time()
        await self.errands.step(row, state=row.state, task_id=task_id, accepted_at=row.accepted_at)

    def not_accepted(self) -> None:
        """Record that the create request was not accepted."""
        if self.on_wire:
            self.on_wire = False
            self.row.state = State.PLANNED
            self.errands.journal.note(self.row.id, state=State.PLANNED)
            if self.errands.refusal():
                self.scope.cancel()
