"""The states of a request: the state after each error, and the action of the next run."""

from __future__ import annotations

import pytest

from kontext_async import (
    DownloadFailed,
    GatewayUnavailable,
    InvalidRequest,
    KontextError,
    RequestRejected,
    SubmissionUncertain,
    TaskFailed,
    TaskNotFound,
    TaskTimeout,
)
from kontext_async.bulk.states import Action, Policy, State, state_after

UNCERTAIN = SubmissionUncertain(request=None, fingerprint="f", seen="nothing")


@pytest.mark.parametrize(
    ("error", "before", "after"),
    [
        (UNCERTAIN, State.INTENT, State.INTENT),
        (GatewayUnavailable("no"), State.INTENT, State.INTENT),
        (GatewayUnavailable("no"), State.PLANNED, State.PLANNED),
        (RequestRejected("no"), State.PLANNED, State.FAILED),
        (InvalidRequest("a", "b", "c"), State.PLANNED, State.FAILED),
        (TaskFailed(task_id="t", code=None, message="no"), State.ACCEPTED, State.FAILED),
        (TaskNotFound("no"), State.ACCEPTED, State.EXPIRED),
        (TaskNotFound("no"), State.COMPLETED, State.EXPIRED),
        (TaskTimeout(task_id="t", waited=1, last_status=None), State.ACCEPTED, State.ACCEPTED),
        (DownloadFailed(url="u", reason="r"), State.COMPLETED, State.COMPLETED),
    ],
)
def test_an_error_leads_to_the_right_state(error: KontextError, before: State, after: State) -> None:
    assert state_after(error, before) is after


def test_the_next_run_takes_the_right_action_for_each_state() -> None:
    plain, again = Policy(), Policy(resend_uncertain=True, retry_failed=True)
    table = {
        State.PLANNED: (Action.SUBMIT, Action.SUBMIT),
        State.INTENT: (Action.REPORT, Action.SUBMIT),
        State.ACCEPTED: (Action.FETCH, Action.FETCH),
        State.COMPLETED: (Action.FETCH, Action.FETCH),
        State.SAVED: (Action.FETCH, Action.FETCH),
        State.FAILED: (Action.REPORT, Action.SUBMIT),
        State.EXPIRED: (Action.REPORT, Action.SUBMIT),
    }
    assert {
        state: (plain.action(state, files_present=False), again.action(state, files_present=False)) for state in State
    } == table
    assert plain.action(State.SAVED, files_present=True) is Action.SKIP
