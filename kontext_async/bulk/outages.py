"""The conduct of a run in an outage: it waits until the session submits again, or stops, with nothing failed.

The session's circuit breaker says when submitting stops and continues. A refused key, an empty balance and a refused
certificate end the run at once: somebody has to mend them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Literal, TypeAlias

import anyio
from attrs import define, field

from kontext_async.errors import AuthenticationFailed, GatewayOutage, GatewayUnavailable, PermissionDenied
from kontext_async.events import CircuitClosed, CircuitOpened

if TYPE_CHECKING:
    from collections.abc import Callable

    from kontext_async.bulk.stop_switch import StopSwitch
    from kontext_async.errors import KontextError
    from kontext_async.session import KontextSession

__all__ = ["OnOutage", "OutageWatch", "lasts"]

OnOutage: TypeAlias = Literal["wait", "stop"]

TRIAL_PAUSE = 0.2
"""Seconds for which a request waits while another one is sent to try the gateway."""


def lasts(error: KontextError) -> bool:
    """Return True for a reason to stop submitting that does not pass by itself. Pure."""
    if isinstance(error, AuthenticationFailed | PermissionDenied):
        return error.from_gateway
    return isinstance(error, GatewayUnavailable) and not error.retryable


@define(eq=False, kw_only=True)
class OutageWatch:
    """Follows the outages of a session on behalf of a run.

    Attributes:
        session: The session of the run.
        on_outage: What the run does in an outage.
        timeout: The seconds of one outage after which a waiting run stops; None waits without a limit.
        switch: Stops the run.
        openings: The number of outages so far.
        is_open: True during an outage.
    """

    session: KontextSession
    on_outage: OnOutage
    timeout: float | None
    switch: StopSwitch
    openings: int = 0
    is_open: bool = False
    _timer: asyncio.TimerHandle | None = None
    _waits: set[anyio.CancelScope] = field(factory=set)
    _subscriptions: list[Callable[[], None]] = field(factory=list)

    def start(self) -> None:
        """Follow the session's events; an outage may have begun earlier."""
        self._subscriptions = [
            self.session.subscribe(self._on_opened, CircuitOpened),
            self.session.subscribe(self._on_closed, CircuitClosed),
        ]
        if self.session.outage:
            self._open(self.session.outage)

    def close(self) -> None:
        """Stop following, and end every wait."""
        while self._subscriptions:
            self._subscriptions.pop()()
        self._end_timer()
        self.end_waits()

    def end_waits(self) -> None:
        """End every wait, because the run stops."""
        for scope in tuple(self._waits):
            scope.cancel()

    async def wait(self) -> bool:
        """Wait until requests can be submitted again. Return False if the run stops first.

        Raises:
            KontextError: The session ended meanwhile.
        """
        with anyio.CancelScope() as scope:
            self._waits.add(scope)
            try:
                await self.session.wait_for_recovery()
                if self.session.outage:  # one request is sent to try the gateway
                    await anyio.sleep(TRIAL_PAUSE)
            finally:
                self._waits.discard(scope)
        return not scope.cancelled_caught

    def _on_opened(self, event: CircuitOpened) -> None:
        self._open(event.error)

    def _on_closed(self, _: CircuitClosed) -> None:
        self.is_open = False
        self._end_timer()

    def _open(self, error: KontextError) -> None:
        self.openings += 1
        self.is_open = True
        if isinstance(error, AuthenticationFailed | PermissionDenied):
            self.switch.trip(error)
        elif lasts(error):
            self.switch.trip(_outage("submitting has stopped, and waiting would not help", error))
        elif self.on_outage == "stop":
            self.switch.trip(_outage("submitting has stopped because of an outage", error))
        elif self.timeout is not None and self._timer is None:
            ended = _outage(f"the outage did not end within {self.timeout:g} s", error)
            self._timer = asyncio.get_running_loop().call_later(self.timeout, self.switch.trip, ended)

    def _end_timer(self) -> None:
        if self._timer:
            self._timer.cancel()
            self._timer = None


def _outage(text: str, error: KontextError) -> GatewayOutage:
    made = GatewayOutage(f"{text}: {error.args[0]}", retry_after=0.0)
    made.__cause__ = error
    return made
