from __future__ import annotations

import pytest
from hypothesis import given, strategies as st

from kontext_async.decisions.resend import (
    Fate,
    GiveUp,
    Resend,
    backoff,
    fate_of_answer,
    fate_of_loss,
    next_step,
    wait_for,
)
from kontext_async.settings import Retries

RETRIES = Retries()
CARELESS = Retries(resend_uncertain=True)

randoms = st.floats(0, 1)
attempts = st.integers(1, 2000)
retries = st.builds(
    lambda attempts, initial, factor, max_retry_after, resend_uncertain: Retries(
        attempts=attempts,
        initial=initial,
        maximum=initial * factor,
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
        expected = Fate.HELD_BACK
    elif status >= 500:
        expected = Fate.UNKNOWN
    else:
        expected = Fate.REFUSED
    assert fate_of_answer(status, names_wait=names_wait) is expected


@pytest.mark.parametrize("status", [400, 401, 402, 403, 404, 413, 422])
def test_a_refused_create_is_raised_as_what_it_is(status: int) -> None:
    assert next_step(fate_of_answer(status, names_wait=True), 1, CARELESS, 0.5) == GiveUp(uncertain=False)


@pytest.mark.parametrize("status", [500, 502, 504])
def test_a_server_error_is_never_sent_again_unasked(status: int) -> None:
    assert next_step(fate_of_answer(status, names_wait=True), 1, RETRIES, 0.5) == GiveUp(uncertain=True)


@pytest.mark.parametrize("status", [429, 503])
def test_a_create_that_is_held_back_is_sent_again(status: int) -> None:
    step = next_step(fate_of_answer(status, names_wait=True), 1, RETRIES, 0.0, retry_after=7.0)
    assert step == Resend(after=7.0)


def test_a_503_without_a_wait_may_have_been_accepted() -> None:
    assert fate_of_answer(503, names_wait=False) is Fate.UNKNOWN


def test_half_a_body_is_no_request() -> None:
    assert fate_of_loss(handed_over=False) is Fate.NOT_ACCEPTED
    assert fate_of_loss(handed_over=True) is Fate.UNKNOWN


@pytest.mark.parametrize(
    ("fate", "careless", "again"),
    [
        (Fate.NOT_ACCEPTED, False, True),
        (Fate.NOT_ACCEPTED, True, True),
        (Fate.HELD_BACK, False, True),
        (Fate.HELD_BACK, True, True),
        (Fate.REFUSED, False, False),
        (Fate.REFUSED, True, False),
        (Fate.UNKNOWN, False, False),
        (Fate.UNKNOWN, True, True),
    ],
)
def test_the_table_of_paying_once(fate: Fate, careless: bool, again: bool) -> None:  # noqa: FBT001 # parameters
    chosen = Retries(attempts=6, resend_uncertain=careless)
    for attempt in range(1, 6):
        assert isinstance(next_step(fate, attempt, chosen, 0.5), Resend) is again


@given(st.sampled_from(Fate), attempts, retries, randoms, st.none() | st.floats(0, 1e9))
def test_what_may_have_been_accepted_is_never_taken_for_refused(
    fate: Fate, attempt: int, chosen: Retries, random: float, named: float | None
) -> None:
    step = next_step(fate, attempt, chosen, random, named)
    if isinstance(step, GiveUp):
        assert step.uncertain is (fate is Fate.UNKNOWN)
    else:
        assert attempt < chosen.attempts
        assert fate is not Fate.REFUSED
        assert fate is not Fate.UNKNOWN or chosen.resend_uncertain
        assert step.after == wait_for(named, attempt, chosen, random)


@pytest.mark.parametrize("fate", [Fate.NOT_ACCEPTED, Fate.HELD_BACK, Fate.UNKNOWN])
@pytest.mark.parametrize("allowed", [1, 2, 6])
def test_attempts_are_bounded(fate: Fate, allowed: int) -> None:
    chosen = Retries(attempts=allowed, resend_uncertain=True)
    sent = 1
    while isinstance(next_step(fate, sent, chosen, 0.5), Resend):
        sent += 1
    assert sent == allowed


@given(attempts, retries, randoms)
def test_a_backoff_stays_within_its_bounds(attempt: int, chosen: Retries, random: float) -> None:
    seconds = backoff(attempt, chosen, random)
    assert chosen.initial / 2 <= seconds <= chosen.maximum


@given(retries, randoms)
def test_a_backoff_never_falls_from_attempt_to_attempt(chosen: Retries, random: float) -> None:
    waits = [backoff(attempt, chosen, random) for attempt in range(1, 100)]
    assert waits == sorted(waits)


def test_a_backoff_doubles_and_half_of_it_is_left_to_chance() -> None:
    assert [backoff(attempt, RETRIES, 1.0) for attempt in range(1, 9)] == [0.5, 1, 2, 4, 8, 16, 30, 30]
    assert [backoff(attempt, RETRIES, 0.0) for attempt in range(1, 9)] == [0.25, 0.5, 1, 2, 4, 8, 15, 15]


@given(st.floats(0, 1e300) | st.just(float("inf")), attempts, retries, randoms)
def test_a_named_wait_is_obeyed_within_reason(named: float, attempt: int, chosen: Retries, random: float) -> None:
    seconds = wait_for(named, attempt, chosen, random)
    obeyed = min(named, chosen.max_retry_after)
    assert obeyed <= seconds <= obeyed + 0.1 * chosen.initial


@given(attempts, retries, randoms)
def test_without_a_named_wait_there_is_a_backoff(attempt: int, chosen: Retries, random: float) -> None:
    assert wait_for(None, attempt, chosen, random) == backoff(attempt, chosen, random)


def test_those_that_were_refused_together_do_not_come_back_together() -> None:
    assert len({wait_for(5.0, 1, RETRIES, random / 10) for random in range(10)}) == 10


@given(st.floats(max_value=-1e-9) | st.just(float("-inf")), randoms)
def test_no_wait_is_negative(named: float, random: float) -> None:
    assert wait_for(max(0.0, named), 1, RETRIES, random) >= 0
