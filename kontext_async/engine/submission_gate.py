"""The gate before the slots: keeps submissions back while the circuit breaker is open, and probes the gateway.

`decisions.circuit_breaker` decides; this module waits, sends the probes and reports.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kontext_async.decisions.circuit_breaker import Admission, Cause, CircuitBreaker, CircuitState
from kontext_async.decisions.resend import AttemptOutcome
from kontext_async.decisions.transport_failures import TransportFailure
from kontext_async.engine.clock import cancel_at, sleep_until
from kontext_async.engine.request_log import LoggedRequest
from kontext_async.engine.transport import TransportError
from kontext_async.errors import (
    AuthenticationFailed,
    GatewayError,
    GatewayOutage,
    GatewayUnavailable,
    KontextError,
    PermissionDenied,
)
from kontext_async.events import CircuitClosed, CircuitOpened

if TYPE_CHECKING:
    from collections.abc import Callable

    from kontext_async.engine.context import Context
    from kontext_async.engine.transport import Transport
    from kontext_async.engine.uploads import UploadLimiter

__all__ = ["StoppedAtGate", "SubmissionGate"]

CAUSES = {
    TransportFailure.CERTIFICATE: Cause.CERTIFICATE,
    TransportFailure.DNS: Cause.UNREACHABLE,
    TransportFailure.REFUSED: Cause.UNREACHABLE,
}


class StoppedAtGate(GatewayUnavailable):
    """The circuit opened after a submission was admitted and before its first byte. Nothing was sent. Internal."""


class SubmissionGate:
    """Holds the circuit breaker of a session.

    Args:
        on_key_refused: Called with the error once a refused key is confirmed.
    """

    def __init__(
        self,
        transport: Transport,
        uploads: UploadLimiter,
        context: Context,
        on_key_refused: Callable[[KontextError], object],
    ) -> None:
        self._transport = transport
        self._uploads = uploads
        self._settings = context.settings.outages
        self._clock = context.clock
        self._hub = context.hub
        self._start_soon = context.start_soon
        self._on_key_refused = on_key_refused
        self._breaker = CircuitBreaker(self._settings)
        self._changed = asyncio.Event()
        self._confirming: asyncio.Future[bool] | None = None
        self._closed = False
        self._openings = 0

    @property
    def state(self) -> CircuitState:
        """The state of the circuit breaker."""
        return self._breaker.state

    @property
    def error(self) -> KontextError | None:
        """The error that opened or stopped the circuit; None while it is closed."""
        return self._breaker.error

    def admit(self) -> Admission:
        """Decide about one submission. One that is sent as a trial must be followed by `end_trial`.

        Raises:
            KontextError: The gateway refuses the key, the balance is too low, or the certificate is not valid.
        """
        admission = self._breaker.admit()
        if admission is Admission.FAIL:
            raise self._stop_error()
        return admission

    def check_before_first_byte(self, *, is_trial: bool) -> None:
        """Check that an admitted submission may still be sent: the store and the connection took time.

        Raises:
            StoppedAtGate: The circuit opened meanwhile.
        """
        state = self._breaker.state
        if state is not CircuitState.CLOSED and not (is_trial and state is CircuitState.HALF_OPEN):
            raise StoppedAtGate("the circuit opened before the request was sent")

    async def wait(self, deadline: float) -> None:
        """Wait for a change of the circuit, unless it is closed.

        Raises:
            GatewayOutage: The deadline passed; nothing was sent.
        """
        if self._breaker.state is not CircuitState.CLOSED and not await self._wait_for_change(deadline):
            raise self._outage_error()

    def end_trial(self) -> None:
        """Let another submission be the trial, if it did not close the circuit."""
        self._breaker.end_trial()
        self._notify()

    async def wait_for_recovery(self, deadline: float | None) -> bool:
        """Wait until requests can be submitted again, a trial included. Return False if the deadline passes first.

        Raises:
            KontextError: The gateway refuses the key.
        """
        while self._breaker.state is CircuitState.OPEN and not self._closed:
            if not await self._wait_for_change(deadline):
                return False
        if self._breaker.state is CircuitState.STOPPED:
            raise self._stop_error()
        return True

    def close(self) -> None:
        """Wake everybody who waits, because the session ends."""
        self._closed = True
        self._notify()

    def record_accepted(self) -> None:
        """Record an accepted create request."""
        self._update(self._breaker.record_accepted)

    def record_failure(self, outcome: AttemptOutcome, error: KontextError, failure: TransportFailure | None) -> None:
        """Record a create request that was not accepted, or may have been."""
        if outcome is AttemptOutcome.UNKNOWN:
            self._record_fault(Cause.UNCERTAIN, error)
        elif failure in CAUSES:
            self._record_fault(CAUSES[failure], error)
        elif isinstance(error, PermissionDenied) and error.concerns_balance:
            self.record_low_balance(error)
        elif isinstance(error, GatewayError) and error.from_gateway:
            self._update(self._breaker.record_rejected)

    def record_low_balance(self, error: KontextError) -> None:
        """Record that the gateway refused a request because of the balance."""
        self._record_fault(Cause.BALANCE, error)

    async def confirm_key(self, error: AuthenticationFailed) -> bool:
        """Send a second request after a 401. Stop the session for good if that is refused too.

        Returns:
            True if the gateway refuses the key.
        """
        return await asyncio.shield(self.start_confirmation(error))

    def start_confirmation(self, error: AuthenticationFailed) -> asyncio.Future[bool]:
        """Start what `confirm_key` waits for. Requests that are refused at the same time share one confirmation."""
        if self._confirming is None:
            self._confirming = asyncio.get_running_loop().create_future()
            self._start_soon(self._confirm, error, self._confirming)
        return self._confirming

    async def _confirm(self, error: AuthenticationFailed, confirmed: asyncio.Future[bool]) -> None:
        refused = False
        try:
            refused = isinstance(await self._probe(), AuthenticationFailed)
        finally:
            self._confirming = None
            if not confirmed.done():
                confirmed.set_result(refused)
        if refused and self._breaker.state is not CircuitState.STOPPED:
            self._breaker.record_key_refused(error, self._clock.time())
            self._hub.emit(CircuitOpened(at=self._clock.utcnow(), error=error, seconds=float("inf")))
            self._notify()
            self._on_key_refused(error)

    def _record_fault(self, cause: Cause, error: KontextError) -> None:
        before = self._breaker.state
        now = self._clock.time()
        self._breaker.record_fault(cause, error, now)
        if self._breaker.state is CircuitState.OPEN and before is not CircuitState.OPEN:
            seconds = self._breaker.probe_at - now
            self._hub.emit(CircuitOpened(at=self._clock.utcnow(), error=error, seconds=seconds))
            self._openings += 1
            self._start_soon(self._probe_until_passed, self._openings)
            self._notify()

    def _update(self, record: Callable[[], None]) -> None:
        before = self._breaker.state
        record()
        if self._breaker.state is CircuitState.CLOSED and before is not CircuitState.CLOSED:
            seconds = self._clock.time() - self._breaker.opened_at
            self._hub.emit(CircuitClosed(at=self._clock.utcnow(), seconds=seconds))
            self._notify()

    async def _probe_until_passed(self, opening: int) -> None:
        """Probe the gateway after each pause, as long as the circuit stays open: each opening has one such task."""
        while self._is_open(opening):
            await sleep_until(self._clock, self._breaker.probe_at)
            passed = self._is_open(opening) and await self._probe() is None
            if self._is_open(opening):
                self._breaker.record_probe(self._clock.time(), passed=passed)
                self._notify()

    def _is_open(self, opening: int) -> bool:
        return self._breaker.state is CircuitState.OPEN and self._openings == opening

    async def _probe(self) -> KontextError | None:
        """Send a free request. Return None if the gateway itself responded, whatever it said, except about the key."""
        request = self._transport.gateway.probe()
        upload = self._uploads.upload(request.body)
        try:
            with LoggedRequest(request.purpose.value, self._clock, attempt=1) as logged:
                response = await self._transport.exchange(request, upload)
                logged.responded(response.status)
        except TransportError as lost:
            return GatewayOutage(str(lost), retry_after=0.0)
        error = self._transport.gateway.read_probe(response)
        return error and self._transport.redact(error)

    async def _wait_for_change(self, deadline: float | None) -> bool:
        changed = self._changed
        if self._closed:
            return True
        with cancel_at(self._clock, deadline):
            await changed.wait()
        return changed.is_set()

    def _notify(self) -> None:
        """Wake everybody who waits for a change."""
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()

    def _stop_error(self) -> KontextError:
        """Make the error of a submission that is not sent, because an earlier one was refused."""
        cause = self._breaker.error or GatewayOutage("submitting has stopped", retry_after=0.0)
        error = cause.copy()
        error.args = (f"not sent, because an earlier request failed: {cause.args[0]}",)
        error.request_id = None
        return error

    def _outage_error(self) -> GatewayOutage:
        cause = self._breaker.error
        now = self._clock.time()
        error = GatewayOutage(
            f"submitting has stopped for {now - self._breaker.opened_at:.0f} s, and nothing was sent: {cause}",
            retry_after=max(0.0, min(self._breaker.probe_at, now + self._settings.probe_max) - now),
        )
        error.__cause__ = cause
        return error
