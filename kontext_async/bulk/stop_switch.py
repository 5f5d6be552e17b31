"""The switch that stops a run: nothing more is submitted, and what is paid for is still awaited and saved."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import define, field

from kontext_async.bulk.errors import RunStopped
from kontext_async.errors import (
    CostLimitReached,
    CostUnknown,
    GatewayOutage,
    KontextError,
    PermissionDenied,
    SessionError,
    StoreError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["StopSwitch"]

RECOVERING_ERRORS = (CostLimitReached, CostUnknown, GatewayOutage, PermissionDenied)
"""After these errors nothing is submitted, and reading continues, so that paid requests of the input are resumed."""

FATAL_ERRORS = (StoreError, SessionError)
"""These errors end the run: its iterator raises the first one, after the outcomes of the tasks in flight."""


@define(eq=False)
class StopSwitch:
    """Stops the submissions of one run, once.

    Attributes:
        reason: Why nothing more is submitted; None while requests are submitted.
        failure: The error that ends the run; None if there is none.
        left: The last error that left a request to the next run without stopping this one; None if none did.
        is_reading: False if no more of the input is read.
        on_trip: Is called each time an error trips the switch.
    """

    reason: KontextError | None = field(default=None, init=False)
    failure: KontextError | None = field(default=None, init=False)
    left: KontextError | None = field(default=None, init=False)
    is_reading: bool = field(default=True, init=False)
    on_trip: list[Callable[[], object]] = field(factory=list, init=False)

    def trip(self, reason: KontextError, *, reads_on: bool = True) -> None:
        """Stop submitting. The first reason is kept.

        Args:
            reason: Why.
            reads_on: False if the rest of the input is not read, whatever the reason.
        """
        self.reason = self.reason or reason
        self.is_reading = self.is_reading and reads_on and isinstance(reason, RECOVERING_ERRORS)
        if isinstance(reason, FATAL_ERRORS):
            self.failure = self.failure or reason
        for callback in self.on_trip:
            callback()

    def check(self) -> None:
        """Check that requests may still be submitted.

        Raises:
            RunStopped: They may not.
        """
        if self.reason:
            raise RunStopped(f"the request was not submitted and is not billed: {self.reason}")
