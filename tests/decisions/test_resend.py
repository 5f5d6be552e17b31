from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from kontext_async.decisions.resend import (
    AttemptOutcome,
    GiveUp,
    Resend,
    backoff,
    decide_retry,
    outcome_of_loss,
    outcome_of_response,
    retry_delay,
)
from kontext_async.settings import Retries

RETRIES = Retries()
CARELESS = Retries(resend_uncertain=True)

randoms = st.floats(0, 1)
attempts = st.integers(1, 2000)
retries = st.builds(
    lambda attempts, initial, factor, max_retry_after, resend_uncertain: Retries(
        attempts=attempts,
        backoff_initial=initial,
        backoff_max=initial * factor,
        max_retry_after=max_retry_after,
        resend_uncertain=resend_uncertain,
    ),
    st.integers(1, 10),
    st.floats(0.001, 100),
    st.floats(1, 1000),
    st.floats(0, 1000),
    st.booleans(),
)


@pytest.mark.parametrize("names_wait", [False, True])
@pytest.mark.parametrize("status", [*range(100, 200), *range(300, 600)])
def test_each_status_has_its_fate(status: int, names_wait: bool) -> None:  # noqa: FBT001 # a parameter
    if status == 429 or (status == 503 and names_wait):
        expected = AttemptOutcome.THROTTLED
    elif status >= 500:
        expected = AttemptOutcome.UNKNOWN
    else:
        expected = AttemptOutcome.REJECTED
    assert outcome_of_response(status, names_wait=names_wait) is expected


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 422])
def test_a_refused_create_is_raised_as_what_it_is(status: int) -> None:
    assert decide_retry(outcome_of_response(status, names_wait=True), 1, CARELESS, 0.5) == GiveUp(uncertain=False)


@pytest.mark.parametrize("status", [500, 502, 504])
def test_a_server_error_is_never_sent_again_unasked(status: int) -> None:
    assert decide_retry(outcome_of_response(status, names_wait=True), 1, RETRIES, 0.5) == GiveUp(uncertain=True)


@pytest.mark.parametrize("status", [429, 503])
def test_a_create_that_is_held_back_is_sent_again(status: int) -> None:
    step = decide_retry(outcome_of_response(status, names_wait=True), 1, RETRIES, 0.0, retry_after=7.0)
    assert step == Resend(after=7.0)


def test_a_503_without_a_wait_may_have_been_accepted() -> None:
    assert outcome_of_response(503, names_wait=False) is AttemptOutcome.UNKNOWN


def test_half_a_body_is_no_request() -> None:
    assert outcome_of_loss(handed_over=False) is AttemptOutcome.NOT_ACCEPTED
    assert outcome_of_loss(handed_over=True) is AttemptOutcome.UNKNOWN


@pytest.mark.parametrize(
    ("fate", "careless", "again"),
    [
        (AttemptOutcome.NOT_ACCEPTED, False, True),
        (AttemptOutcome.NOT_ACCEPTED, True, True),
        (AttemptOutcome.THROTTLED, False, True),
        (AttemptOutcome.THROTTLED, True, True),
        (AttemptOutcome.REJECTED, False, False),
        (AttemptOutcome.REJECTED, True, False),
        (AttemptOutcome.UNKNOWN, False, False),
        (AttemptOutcome.UNKNOWN, True, True),
    ],
)
def test_the_table_of_paying_once(fate: AttemptOutcome, careless: bool, again: bool) -> None:  # noqa: FBT001 # parameters
    chosen = Retries(attempts=6, resend_uncertain=careless)
    for attempt in range(1, 6):
        assert isinstance(decide_retry(fate, attempt, chosen, 0.5), Resend) is again


@given(st.sampled_from(AttemptOutcome), attempts, retries, randoms, st.none() | st.floats(0, 1e9))
def test_what_may_have_been_accepted_is_never_taken_for_refused(
    fate: AttemptOutcome, attempt: int, chosen: Retries, random: float, named: float | None
) -> None:
    step = decide_retry(fate, attempt, chosen, random, named)
    if isinstance(step, GiveUp):
        assert step.uncertain is (fate is AttemptOutcome.UNKNOWN)
    else:
        assert attempt < chosen.attempts
        assert fate is not AttemptOutcome.REJECTED
        assert fate is not AttemptOutcome.UNKNOWN or chosen.resend_uncertain
        assert step.after == retry_delay(named, attempt, chosen, random)


@pytest.mark.parametrize("fate", [AttemptOutcome.NOT_ACCEPTED, AttemptOutcome.THROTTLED, AttemptOutcome.UNKNOWN])
@pytest.mark.parametrize("allowed", [1, 2, 6])
def test_attempts_are_bounded(fate: AttemptOutcome, allowed: int) -> None:
    chosen = Retries(attempts=allowed, resend_uncertain=True)
    sent = 1
    while isinstance(decide_retry(fate, sent, chosen, 0.5), Resend):
        sent += 1
    assert sent == allowed


@given(attempts, retries, randoms)
def test_a_backoff_stays_within_its_bounds(attempt: int, chosen: Retries, random: float) -> None:
    seconds = backoff(attempt, chosen, random)
    assert chosen.backoff_initial / 2 <= seconds <= chosen.backoff_max


@given(retries, randoms)
def test_a_backoff_never_falls_from_attempt_to_attempt(chosen: Retries, random: float) -> None:
    waits = [backoff(attempt, chosen, random) for attempt in range(1, 100)]
    assert waits == sorted(waits)


def test_a_backoff_doubles_and_half_of_it_is_left_to_chance() -> None:
    assert [backoff(attempt, RETRIES, 1.0) for attempt in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert [backoff(attempt, RETRIES, 0.0) for attempt in range(1, 9)] == [0.25, 0.5, 1, 2, 4, 8, 15, 15]


@given(st.floats(0, 1e300) | st.just(float("inf")), attempts, retries, randoms)
def test_a_named_wait_is_obeyed_within_reason(named: float, attempt: int, chosen: Retries, random: float) -> None:
    seconds = retry_delay(named, attempt, chosen, random)
    obeyed = min(named, chosen.max_retry_after)
    assert obeyed <= seconds <= obeyed + 0.1 * chosen.backoff_initial


@given(attempts, retries, randoms)
def test_without_a_named_wait_there_is_a_backoff(attempt: int, chosen: Retries, random: float) -> None:
    assert retry_delay(None, attempt, chosen, random) == backoff(attempt, chosen, random)


def test_those_that_were_refused_together_do_not_come_back_together() -> None:
    assert len({retry_delay(5.0, 1, RETRIES, random / 10) for random in range(10)}) == 10


@given(st.floats(max_value=-1e-9) | st.just(float("-inf")), randoms)
def test_no_wait_is_negative(named: float, random: float) -> None:
    assert retry_delay(max(0.0, named), 1, RETRIES, random) >= 0
