"""The circuit breaker by itself: no loop, no clock."""

from __future__ import annotations

import itertools

import pytest

from kontext_async import AuthenticationFailed, GatewayUnavailable, Outages, PermissionDenied
from kontext_async.decisions.circuit_breaker import (
    TRANSITIONS,
    Admission,
    Cause,
    CircuitBreaker,
    CircuitState,
    Observation,
)

ERROR = GatewayUnavailable("502")
SETTINGS = Outages(uncertain_limit=3, probe_initial=1.0, probe_max=8.0)


@pytest.fixture
def breaker() -> CircuitBreaker:
    return CircuitBreaker(SETTINGS)


def open_breaker(breaker: CircuitBreaker, cause: Cause = Cause.UNREACHABLE, now: float = 0.0) -> None:
    count = SETTINGS.uncertain_limit if cause is Cause.UNCERTAIN else 1
    for _ in range(count):
        breaker.record_fault(cause, ERROR, now)
    assert breaker.state is CircuitState.OPEN


def half_open(breaker: CircuitBreaker, now: float = 1.0) -> None:
    open_breaker(breaker)
    breaker.record_probe(now, passed=True)
    assert breaker.state is CircuitState.HALF_OPEN


def test_it_admits_everything_while_it_is_closed(breaker: CircuitBreaker) -> None:
    assert [breaker.admit() for _ in range(3)] == [Admission.SEND] * 3
    assert breaker.error is None


def test_it_opens_on_uncertain_requests_in_a_row(breaker: CircuitBreaker) -> None:
    for _ in range(SETTINGS.uncertain_limit - 1):
        breaker.record_fault(Cause.UNCERTAIN, ERROR, 5.0)
        assert breaker.state is CircuitState.CLOSED
    breaker.record_fault(Cause.UNCERTAIN, ERROR, 6.0)
    assert (breaker.state, breaker.error, breaker.opened_at) == (CircuitState.OPEN, ERROR, 6.0)
    assert breaker.admit() is Admission.WAIT


@pytest.mark.parametrize("end", ["record_accepted", "record_rejected"])
def test_a_response_of_the_gateway_resets_the_count(breaker: CircuitBreaker, end: str) -> None:
    for _ in range(10):
        breaker.record_fault(Cause.UNCERTAIN, ERROR, 0.0)
        breaker.record_fault(Cause.UNCERTAIN, ERROR, 0.0)
        getattr(breaker, end)()
    assert breaker.state is CircuitState.CLOSED


@pytest.mark.parametrize("cause", [Cause.UNREACHABLE, Cause.CERTIFICATE, Cause.BALANCE])
def test_it_opens_at_once_on_other_faults(breaker: CircuitBreaker, cause: Cause) -> None:
    open_breaker(breaker, cause)


@pytest.mark.parametrize(
    ("cause", "admission"),
    [
        (Cause.UNCERTAIN, Admission.WAIT),
        (Cause.UNREACHABLE, Admission.WAIT),
        (Cause.CERTIFICATE, Admission.FAIL),
        (Cause.BALANCE, Admission.FAIL),
    ],
)
def test_submissions_wait_unless_somebody_has_to_mend_the_cause(
    breaker: CircuitBreaker, cause: Cause, admission: Admission
) -> None:
    open_breaker(breaker, cause)
    assert breaker.admit() is admission


def test_requests_in_flight_change_nothing_after_it_opened(breaker: CircuitBreaker) -> None:
    open_breaker(breaker, Cause.UNCERTAIN, 1.0)
    breaker.record_fault(Cause.UNCERTAIN, PermissionDenied("late"), 1.5)
    breaker.record_fault(Cause.UNREACHABLE, PermissionDenied("late"), 1.6)
    assert (breaker.error, breaker.opened_at, breaker.probe_at) == (ERROR, 1.0, 2.0)


def test_an_accepted_request_closes_it_unless_the_balance_is_too_low(breaker: CircuitBreaker) -> None:
    open_breaker(breaker)
    breaker.record_accepted()
    assert (breaker.state, breaker.error) == (CircuitState.CLOSED, None)
    open_breaker(breaker, Cause.BALANCE)
    breaker.record_accepted()
    assert breaker.state is CircuitState.OPEN


def test_the_pause_doubles_up_to_its_bound(breaker: CircuitBreaker) -> None:
    open_breaker(breaker)
    now, pauses = 0.0, []
    for _ in range(6):
        pauses.append(breaker.probe_at - now)
        now = breaker.probe_at
        breaker.record_probe(now, passed=False)
    assert pauses == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_the_pause_starts_again_after_it_closed(breaker: CircuitBreaker) -> None:
    open_breaker(breaker)
    breaker.record_probe(1.0, passed=False)
    breaker.record_accepted()
    open_breaker(breaker, now=50.0)
    assert breaker.probe_at == 51.0


def test_one_trial_at_a_time_is_sent_after_a_passed_probe(breaker: CircuitBreaker) -> None:
    half_open(breaker)
    assert breaker.admit() is Admission.SEND_AS_TRIAL
    assert [breaker.admit() for _ in range(3)] == [Admission.WAIT] * 3
    breaker.end_trial()
    assert breaker.admit() is Admission.SEND_AS_TRIAL


def test_an_accepted_trial_closes_it(breaker: CircuitBreaker) -> None:
    half_open(breaker)
    breaker.admit()
    breaker.record_accepted()
    breaker.end_trial()
    assert (breaker.state, breaker.admit(), breaker.error) == (CircuitState.CLOSED, Admission.SEND, None)


@pytest.mark.parametrize("cause", [Cause.UNCERTAIN, Cause.UNREACHABLE, Cause.BALANCE])
def test_a_failed_trial_opens_it_again_for_twice_as_long(breaker: CircuitBreaker, cause: Cause) -> None:
    """One uncertain trial is enough: the limit counts while it is closed."""
    half_open(breaker, 1.0)
    breaker.admit()
    breaker.record_fault(cause, ERROR, 2.0)
    assert (breaker.state, breaker.probe_at) == (CircuitState.OPEN, 4.0)


def test_a_refused_trial_lets_another_one_go(breaker: CircuitBreaker) -> None:
    half_open(breaker)
    breaker.admit()
    breaker.record_rejected()
    breaker.end_trial()
    assert breaker.admit() is Admission.SEND_AS_TRIAL


@pytest.mark.parametrize("state", CircuitState)
def test_a_refused_key_stops_it_for_good(breaker: CircuitBreaker, state: CircuitState) -> None:
    breaker.state = state
    error = AuthenticationFailed("401")
    breaker.record_key_refused(error, 3.0)
    breaker.record_accepted()
    breaker.record_fault(Cause.UNREACHABLE, ERROR, 4.0)
    breaker.record_probe(5.0, passed=True)
    assert (breaker.state, breaker.error, breaker.admit()) == (CircuitState.STOPPED, error, Admission.FAIL)


def test_the_table_says_what_the_docstring_says() -> None:
    stay = {key for key in itertools.product(CircuitState, Observation) if key not in TRANSITIONS}
    assert (CircuitState.STOPPED, Observation.ACCEPTED) in stay
    assert TRANSITIONS[CircuitState.HALF_OPEN, Observation.FAULT] is CircuitState.OPEN
    assert len(TRANSITIONS) == 5 + len(CircuitState)
