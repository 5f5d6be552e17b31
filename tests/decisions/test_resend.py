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
RESENDING = Retries(resend_uncertain=True)

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


@pytest.mark.parametrize("has_retry_after", [False, True])
@pytest.mark.parametrize("status", [*range(100, 200), *range(300, 600)])
def test_each_status_has_its_outcome(status: int, has_retry_after: bool) -> None:  # noqa: FBT001 # a parameter
    if status == 429 or (status == 503 and has_retry_after):
        expected = AttemptOutcome.THROTTLED
    elif status >= 500:
        expected = AttemptOutcome.UNKNOWN
    else:
        expected = AttemptOutcome.REJECTED
    assert outcome_of_response(status, has_retry_after=has_retry_after) is expected


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 422])
def test_a_rejected_create_request_is_not_sent_again(status: int) -> None:
    assert decide_retry(outcome_of_response(status, has_retry_after=True), 1, RESENDING, 0.5) == GiveUp(uncertain=False)


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_by_a_proxys_page_is_sent_again(status: int) -> None:
    outcome = outcome_of_response(status, has_retry_after=False, from_gateway=False)
    assert outcome is AttemptOutcome.NOT_ACCEPTED


@pytest.mark.parametrize("status", [400, 402, 404, 422])
def test_another_refusal_is_raised_whoever_it_came_from(status: int) -> None:
    assert outcome_of_response(status, has_retry_after=False, from_gateway=False) is AttemptOutcome.REJECTED


@pytest.mark.parametrize("status", [500, 502, 504])
def test_a_create_request_is_not_sent_again_after_a_server_error_by_default(status: int) -> None:
    assert decide_retry(outcome_of_response(status, has_retry_after=True), 1, RETRIES, 0.5) == GiveUp(uncertain=True)


@pytest.mark.parametrize("status", [429, 503])
def test_a_throttled_create_request_is_sent_again_after_retry_after(status: int) -> None:
    decision = decide_retry(outcome_of_response(status, has_retry_after=True), 1, RETRIES, 0.0, retry_after=7.0)
    assert decision == Resend(after=7.0)


def test_a_create_request_that_was_only_throttled_has_all_its_attempts_left() -> None:
    once = Retries(attempts=1)
    assert decide_retry(AttemptOutcome.THROTTLED, 0, once, 0.5) == Resend(after=backoff(1, once, 0.5))
    assert decide_retry(AttemptOutcome.THROTTLED, 1, once, 0.5) == GiveUp(uncertain=False)


@given(st.integers(0, 100), retries, randoms)
def test_a_request_that_was_stopped_goes_to_the_gate_at_once(attempt: int, chosen: Retries, random: float) -> None:
    assert decide_retry(AttemptOutcome.STOPPED, attempt, chosen, random) == Resend(after=0.0)


def test_the_outcome_of_a_503_without_retry_after_is_unknown() -> None:
    assert outcome_of_response(503, has_retry_after=False) is AttemptOutcome.UNKNOWN


def test_a_request_with_half_a_body_was_not_accepted() -> None:
    assert outcome_of_loss(handed_over=False) is AttemptOutcome.NOT_ACCEPTED
    assert outcome_of_loss(handed_over=True) is AttemptOutcome.UNKNOWN


@pytest.mark.parametrize(
    ("outcome", "resend_uncertain", "again"),
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
def test_each_outcome_is_retried_or_not_as_the_table_says(
    outcome: AttemptOutcome,
    resend_uncertain: bool,  # noqa: FBT001 # a parameter
    again: bool,  # noqa: FBT001 # a parameter
) -> None:
    chosen = Retries(attempts=6, resend_uncertain=resend_uncertain)
    for attempt in range(1, 6):
        assert isinstance(decide_retry(outcome, attempt, chosen, 0.5), Resend) is again


@given(
    st.sampled_from(AttemptOutcome).filter(lambda outcome: outcome is not AttemptOutcome.STOPPED),
    attempts,
    retries,
    randoms,
    st.none() | st.floats(0, 1e9),
)
def test_giving_up_is_uncertain_exactly_if_the_outcome_is_unknown(
    outcome: AttemptOutcome, attempt: int, chosen: Retries, random: float, retry_after: float | None
) -> None:
    decision = decide_retry(outcome, attempt, chosen, random, retry_after)
    if isinstance(decision, GiveUp):
        assert decision.uncertain is (outcome is AttemptOutcome.UNKNOWN)
    else:
        assert attempt < chosen.attempts
        assert outcome is not AttemptOutcome.REJECTED
        assert outcome is not AttemptOutcome.UNKNOWN or chosen.resend_uncertain
        assert decision.after == retry_delay(retry_after, attempt, chosen, random)


@pytest.mark.parametrize("outcome", [AttemptOutcome.NOT_ACCEPTED, AttemptOutcome.THROTTLED, AttemptOutcome.UNKNOWN])
@pytest.mark.parametrize("allowed", [1, 2, 6])
def test_the_number_of_attempts_is_bounded(outcome: AttemptOutcome, allowed: int) -> None:
    chosen = Retries(attempts=allowed, resend_uncertain=True)
    sent = 1
    while isinstance(decide_retry(outcome, sent, chosen, 0.5), Resend):
        sent += 1
    assert sent == allowed


@given(attempts, retries, randoms)
def test_a_backoff_stays_within_its_bounds(attempt: int, chosen: Retries, random: float) -> None:
    seconds = backoff(attempt, chosen, random)
    assert chosen.backoff_initial / 2 <= seconds <= chosen.backoff_max


@given(retries, randoms)
def test_a_backoff_never_decreases_from_attempt_to_attempt(chosen: Retries, random: float) -> None:
    waits = [backoff(attempt, chosen, random) for attempt in range(1, 100)]
    assert waits == sorted(waits)


def test_a_backoff_doubles_and_half_of_it_is_random() -> None:
    assert [backoff(attempt, RETRIES, 1.0) for attempt in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert [backoff(attempt, RETRIES, 0.0) for attempt in range(1, 9)] == [0.25, 0.5, 1, 2, 4, 8, 15, 15]


@given(st.floats(0, 1e300) | st.just(float("inf")), attempts, retries, randoms)
def test_retry_after_is_obeyed_up_to_the_maximum(
    retry_after: float, attempt: int, chosen: Retries, random: float
) -> None:
    seconds = retry_delay(retry_after, attempt, chosen, random)
    expected = min(retry_after, chosen.max_retry_after)
    assert expected <= seconds <= expected + 0.1 * chosen.backoff_initial


@given(attempts, retries, randoms)
def test_the_delay_without_retry_after_is_a_backoff(attempt: int, chosen: Retries, random: float) -> None:
    assert retry_delay(None, attempt, chosen, random) == backoff(attempt, chosen, random)


def test_requests_that_were_throttled_together_do_not_return_together() -> None:
    assert len({retry_delay(5.0, 1, RETRIES, random / 10) for random in range(10)}) == 10


@given(st.floats(max_value=-1e-9) | st.just(float("-inf")), randoms)
def test_no_delay_is_negative(retry_after: float, random: float) -> None:
    assert retry_delay(max(0.0, retry_after), 1, RETRIES, random) >= 0
