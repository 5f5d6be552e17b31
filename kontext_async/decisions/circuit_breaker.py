"""The circuit breaker: decides when submitting stops, and when it is tried again. Pure: no await, no clock.

A create request costs money, so a session does not send one request after another into an outage. The breaker opens on

- `Outages.uncertain_limit` uncertain create requests in a row, in the order of their ends; an accepted one resets the
  count. Requests that are in flight when it opens may still end uncertain;
- a certificate, DNS or refused-connection error: nothing was sent, and nothing will get through;
- a 402 or 403 about the balance: nothing will be accepted.

While it is open no create request is sent. Polling and downloads continue. After a pause the session probes the gateway
with a free request; if that gets through, one create request may go as a trial. The pause doubles with each failure.

==============  ==========  ===========  ============  =============  =============  ==============
state           ACCEPTED    REJECTED     FAULT         PROBE_PASSED   PROBE_FAILED   KEY_REFUSED
==============  ==========  ===========  ============  =============  =============  ==============
CLOSED          CLOSED      CLOSED       OPEN          -              -              STOPPED
OPEN            CLOSED (1)  OPEN         OPEN          HALF_OPEN      OPEN (2)       STOPPED
HALF_OPEN       CLOSED      HALF_OPEN    OPEN (2)      -              -              STOPPED
STOPPED         STOPPED     STOPPED      STOPPED       -              -              STOPPED
==============  ==========  ===========  ============  =============  =============  ==============

FAULT is one of the causes above. REJECTED is any other response of the gateway itself. (1) A request that was sent
before the breaker opened shows that the gateway works, unless the cause is the balance. (2) The pause doubles.

The rules for keys: a 401 counts if it is the gateway's own, not a proxy's page, and if a second request confirms it.
Then the session stops for good (KEY_REFUSED).
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from attrs import define, field

if TYPE_CHECKING:
    from kontext_async.base_errors import KontextError
    from kontext_async.settings import Outages

__all__ = ["Admission", "Cause", "CircuitBreaker", "CircuitState", "Observation"]


class CircuitState(enum.Enum):
    """The states of the breaker."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"
    STOPPED = "stopped"

    __hash__ = object.__hash__  # as in `decisions.submission`: each create request looks up the table


class Observation(enum.Enum):
    """The things that the breaker learns from."""

    ACCEPTED = enum.auto()
    REJECTED = enum.auto()
    FAULT = enum.auto()
    PROBE_PASSED = enum.auto()
    PROBE_FAILED = enum.auto()
    KEY_REFUSED = enum.auto()

    __hash__ = object.__hash__  # as above


class Cause(enum.Enum):
    """The causes of a fault."""

    UNCERTAIN = enum.auto()
    UNREACHABLE = enum.auto()
    CERTIFICATE = enum.auto()
    BALANCE = enum.auto()


LASTING = frozenset({Cause.CERTIFICATE, Cause.BALANCE})
"""The causes that somebody has to mend: a submission fails at once instead of waiting for the end of the outage."""


class Admission(enum.Enum):
    """The decisions about a submission."""

    SEND = enum.auto()
    SEND_AS_TRIAL = enum.auto()
    WAIT = enum.auto()
    FAIL = enum.auto()


TRANSITIONS: dict[tuple[CircuitState, Observation], CircuitState] = {
    (CircuitState.CLOSED, Observation.FAULT): CircuitState.OPEN,
    (CircuitState.OPEN, Observation.ACCEPTED): CircuitState.CLOSED,
    (CircuitState.OPEN, Observation.PROBE_PASSED): CircuitState.HALF_OPEN,
    (CircuitState.HALF_OPEN, Observation.ACCEPTED): CircuitState.CLOSED,
    (CircuitState.HALF_OPEN, Observation.FAULT): CircuitState.OPEN,
    **{(state, Observation.KEY_REFUSED): CircuitState.STOPPED for state in CircuitState},
}
"""Any other observation leaves the state as it is."""


@define
class CircuitBreaker:
    """Decides whether create requests may be sent.

    Attributes:
        settings: The user's settings.
        state: The current state.
        error: The error that opened or stopped it; None while it is closed.
        opened_at: The time at which it opened.
        probe_at: The time of the next probe, while it is open.
    """

    settings: Outages
    state: CircuitState = field(default=CircuitState.CLOSED, init=False)
    error: KontextError | None = field(default=None, init=False)
    opened_at: float = field(default=0.0, init=False)
    probe_at: float = field(default=float("inf"), init=False)
    _cause: Cause | None = field(default=None, init=False)
    _uncertain: int = field(default=0, init=False)
    _pause: float = field(default=0.0, init=False)
    _trial: bool = field(default=False, init=False)

    def admit(self) -> Admission:
        """Decide about one submission. One that is sent as a trial must be followed by `end_trial`."""
        if self.state is CircuitState.CLOSED:
            return Admission.SEND
        if self.state is CircuitState.HALF_OPEN and not self._trial:
            self._trial = True
            return Admission.SEND_AS_TRIAL
        return Admission.FAIL if self.state is CircuitState.STOPPED or self._cause in LASTING else Admission.WAIT

    def end_trial(self) -> None:
        """Allow another trial: the last one has ended, whatever became of it."""
        self._trial = False

    def record_accepted(self) -> None:
        """Record an accepted create request."""
        self._uncertain = 0
        if self.state is CircuitState.OPEN and self._cause is Cause.BALANCE:
            return
        self._move(Observation.ACCEPTED)

    def record_rejected(self) -> None:
        """Record a create request that the gateway itself refused or throttled."""
        self._uncertain = 0
        self._move(Observation.REJECTED)

    def record_fault(self, cause: Cause, error: KontextError, now: float) -> None:
        """Record a create request that is uncertain, could not get through, or was refused for the balance."""
        if cause is Cause.UNCERTAIN and self.state is CircuitState.CLOSED:
            self._uncertain += 1
            if self._uncertain < self.settings.uncertain_limit:
                return
        before = self.state
        self._move(Observation.FAULT)
        if self.state is not CircuitState.OPEN or before is CircuitState.OPEN:
            return
        if before is CircuitState.CLOSED:
            self.opened_at, self._pause = now, 0.0
        self.error, self._cause = error, cause
        self._schedule_probe(now)

    def record_probe(self, now: float, *, passed: bool) -> None:
        """Record a free probe."""
        self._move(Observation.PROBE_PASSED if passed else Observation.PROBE_FAILED)
        if self.state is CircuitState.OPEN:
            self._schedule_probe(now)

    def record_key_refused(self, error: KontextError, now: float) -> None:
        """Record a confirmed 401: the session stops for good."""
        if self.state is CircuitState.CLOSED:
            self.opened_at = now
        self.error = error
        self._move(Observation.KEY_REFUSED)

    def _move(self, observation: Observation) -> None:
        self.state = TRANSITIONS.get((self.state, observation), self.state)
        if self.state is CircuitState.CLOSED:
            self.error = self._cause = None
        if self.state is not CircuitState.OPEN:
            self.probe_at = float("inf")

    def _schedule_probe(self, now: float) -> None:
        self._pause = min(self.settings.probe_max, self._pause * 2 or self.settings.probe_initial)
        self.probe_at = now + self._pause
