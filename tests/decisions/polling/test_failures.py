from __future__ import annotations

from typing import Any

from hypothesis import given, strategies as st

from kontext_async.decisions.polling.entry import PollEntry
from kontext_async.decisions.polling.failures import FailureAction, PollFailure, record_failure
from kontext_async.settings import Retries

NOT_FOUND, TRANSIENT = PollFailure.NOT_FOUND, PollFailure.TRANSIENT
POLL_AGAIN, FAIL_TASK = FailureAction.POLL_AGAIN, FailureAction.FAIL_TASK


def record_all(*steps: tuple[float, PollFailure], **retries: Any) -> list[FailureAction]:
    task = PollEntry("t", 0.0)
    return [record_failure(task, failure, now, Retries(**retries)) for now, failure in steps]


def test_a_404_fails_the_task_after_the_grace_period() -> None:
    actions = record_all((5.0, NOT_FOUND), (14.9, NOT_FOUND), (15.0, NOT_FOUND))
    assert actions == [POLL_AGAIN, POLL_AGAIN, FAIL_TASK]


def test_the_first_404_fails_the_task_without_a_grace_period() -> None:
    assert record_all((5.0, NOT_FOUND), not_found_grace=0) == [FAIL_TASK]


def test_another_failure_restarts_the_grace_period() -> None:
    steps = [(0.0, NOT_FOUND), (9.0, TRANSIENT), (11.0, NOT_FOUND), (20.9, NOT_FOUND), (21.0, NOT_FOUND)]
    assert record_all(*steps) == [POLL_AGAIN, POLL_AGAIN, POLL_AGAIN, POLL_AGAIN, FAIL_TASK]


def test_transient_failures_fail_the_task_when_the_budget_is_spent() -> None:
    actions = record_all((7.0, TRANSIENT), (306.9, TRANSIENT), (307.0, TRANSIENT))
    assert actions == [POLL_AGAIN, POLL_AGAIN, FAIL_TASK]


def test_404s_spend_the_budget_too() -> None:
    steps = [(0.0, TRANSIENT), (295.0, NOT_FOUND), (300.0, NOT_FOUND)]
    assert record_all(*steps) == [POLL_AGAIN, POLL_AGAIN, FAIL_TASK]


@given(
    st.lists(st.tuples(st.floats(0, 100), st.sampled_from([NOT_FOUND, TRANSIENT])), min_size=1, max_size=20),
    st.floats(0, 200),
    st.floats(1, 200),
)
def test_a_task_fails_exactly_when_grace_or_budget_is_spent(
    steps: list[tuple[float, PollFailure]], grace: float, budget: float
) -> None:
    retries = Retries(not_found_grace=grace, failure_budget=budget)
    task, now, missing_since = PollEntry("t", 0.0), 0.0, None
    begun = steps[0][0]
    for gap, failure in steps:
        now += gap
        missing_since = (now if missing_since is None else missing_since) if failure is NOT_FOUND else None
        over = now - begun >= budget or (missing_since is not None and now - missing_since >= grace)
        assert record_failure(task, failure, now, retries) is (FAIL_TASK if over else POLL_AGAIN)
    assert task.failures == len(steps)
