"""One request of a run, while the run has it in hand, and the journal of its submission."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define

from kontext_async.engine.row_journal import RowJournal
from kontext_async.store.steps import State

if TYPE_CHECKING:
    import anyio

    from kontext_async.bulk.records import InputRequest
    from kontext_async.bulk.stop_switch import StopSwitch
    from kontext_async.decisions.budget import Reservation
    from kontext_async.models import KontextRequest
    from kontext_async.store.rows import Row

__all__ = ["Item", "ItemJournal"]


@define(eq=False, kw_only=True)
class ItemJournal(RowJournal):
    """Records the submission of an item, and ends it when the run stops before the gateway has accepted it.

    Attributes:
        switch: The switch that stops the run.
        scope: Is cancelled to end the submission.
    """

    switch: StopSwitch
    scope: anyio.CancelScope

    def not_accepted(self) -> None:
        """Record that the create request was not accepted. It is sent again unless the run stops."""
        super().not_accepted()
        if self.switch.reason:
            self.scope.cancel()


@define(eq=False, kw_only=True)
class Item:
    """A request of a run, and how far it is.

    Attributes:
        entry: The request as it was read; None if it is missing from the input.
        row: Its row, as it was last known.
        reservation: The money that is reserved for it; None before it is admitted, and if it cost its money earlier.
        from_earlier_run: True if an earlier run, or another worker, submitted it.
        uncertain_attempts: The attempts of its row that the budget counts as uncertain.
        journal: Records its submission; None while it is not being submitted.
    """

    entry: InputRequest | None
    row: Row
    reservation: Reservation | None = None
    from_earlier_run: bool = False
    uncertain_attempts: int = 0
    journal: ItemJournal | None = None

    @property
    def request(self) -> KontextRequest | None:
        """The request; None if it is missing from the input."""
        return self.entry.request if self.entry else None

    def call_off(self) -> None:
        """End the submission, if no create request is on its way."""
        if self.journal and self.journal.row.state is State.PLANNED:
            self.journal.scope.cancel()

    def release(self) -> None:
        """Release the money: the request is not billed."""
        if self.reservation:
            self.reservation.release()
