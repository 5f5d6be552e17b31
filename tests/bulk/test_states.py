"""What a run does with a row in each state, and what an error means for a row."""

from __future__ import annotations

import attrs
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
from kontext_async.bulk.states import Action, Consequence, Policy, Viewer, consequence_of
from kontext_async.store.rows import Row
from kontext_async.store.steps import State

ME, OTHER = 1, 2
MINE, THEIRS = 7, 8
VIEWER = Viewer(worker=ME, account=MINE, folder=1, takes_planned=False)
PLAIN, AGAIN = Policy(began=100.0), Policy(resend_uncertain=True, retry_failed=True, began=100.0)


def make_row(
    state: State, owner: int | None = None, *, alive: bool = True, account: int | None = MINE, failed_at: float = 50.0
) -> Row:
    return Row(
        id=1,
        run=1,
        key="k",
        state=state,
        attempt=1,
        owner=owner,
        owner_alive=alive and owner is not None,
        account=account,
        digest=bytes(32),
        model="m",
        images=0,
        prompt="fox",
        task_id="t",
        folder=1,
        intended_at=failed_at,
        completed_at=failed_at,
    )


@pytest.mark.parametrize(
    ("error", "state", "expected"),
    [
        (SubmissionUncertain(request=None, fingerprint="f", seen="nothing"), State.UNCERTAIN, Consequence.UNCERTAIN),
        (GatewayUnavailable("no"), State.PLANNED, Consequence.OPEN),
        (RequestRejected("no"), State.PLANNED, Consequence.FAILED),
        (InvalidRequest("a", "b", "c"), State.PLANNED, Consequence.FAILED),
        (TaskFailed(task_id="t", code=None, message="no"), State.ACCEPTED, Consequence.FAILED),
        (TaskNotFound("no"), State.ACCEPTED, Consequence.EXPIRED),
        (TaskNotFound("no"), State.COMPLETED, Consequence.EXPIRED),
        (TaskTimeout(task_id="t", waited=1, last_status=None), State.ACCEPTED, Consequence.UNCHANGED),
        (DownloadFailed(url="u", reason="r"), State.COMPLETED, Consequence.UNCHANGED),
    ],
)
def test_an_error_has_the_right_consequence(error: KontextError, state: State, expected: Consequence) -> None:
    assert consequence_of(error, make_row(state)) is expected


def test_a_task_that_is_not_found_stays_accepted_while_nobody_knows_its_account() -> None:
    """Rows of version 1 have no account."""
    assert consequence_of(TaskNotFound("no"), make_row(State.ACCEPTED, account=None)) is Consequence.UNCHANGED


def test_a_paid_task_whose_address_is_refused_is_left_as_it_is() -> None:
    refused = InvalidRequest("reference", "https://poll.example", "its host is not trusted")
    assert consequence_of(refused, make_row(State.ACCEPTED)) is Consequence.UNCHANGED
    assert consequence_of(refused, make_row(State.PLANNED)) is Consequence.FAILED


@pytest.mark.parametrize("owner", [None, ME, OTHER], ids=["nobody", "itself", "a dead worker"])
def test_a_run_takes_the_right_action_for_a_row_that_no_other_live_worker_owns(owner: int | None) -> None:
    table = {
        State.PLANNED: (Action.SUBMIT, Action.SUBMIT),
        State.UNCERTAIN: (Action.REPORT, Action.SUBMIT),
        State.ACCEPTED: (Action.FETCH, Action.FETCH),
        State.COMPLETED: (Action.FETCH, Action.FETCH),
        State.SAVED: (Action.FETCH, Action.FETCH),
        State.FAILED: (Action.REPORT, Action.SUBMIT),
        State.EXPIRED: (Action.REPORT, Action.SUBMIT),
    }
    rows = {state: make_row(state, owner, alive=owner == ME) for state in table}
    assert {
        state: tuple(policy.action(row, VIEWER, files_intact=False) for policy in (PLAIN, AGAIN))
        for state, row in rows.items()
    } == table
    assert PLAIN.action(rows[State.SAVED], VIEWER, files_intact=True) is Action.SKIP


def test_an_attempt_of_a_dead_worker_is_swept_and_that_of_a_live_one_is_awaited() -> None:
    assert PLAIN.action(make_row(State.INTENT, OTHER, alive=False), VIEWER, files_intact=False) is Action.SWEEP
    assert PLAIN.action(make_row(State.INTENT, OTHER), VIEWER, files_intact=False) is Action.WAIT


@pytest.mark.parametrize("state", [State.PLANNED, State.ACCEPTED, State.COMPLETED])
def test_a_row_of_another_live_worker_is_awaited(state: State) -> None:
    assert PLAIN.action(make_row(state, OTHER), VIEWER, files_intact=False) is Action.WAIT


def test_a_planned_row_that_another_worker_prefers_is_taken_once_the_input_is_read() -> None:
    viewer = attrs.evolve(VIEWER, takes_planned=True)
    assert PLAIN.action(make_row(State.PLANNED, OTHER), viewer, files_intact=False) is Action.SUBMIT
    assert PLAIN.action(make_row(State.ACCEPTED, OTHER), viewer, files_intact=False) is Action.WAIT


def test_images_in_the_directory_of_another_worker_count_as_done() -> None:
    row = attrs.evolve(make_row(State.SAVED), folder=2)
    assert PLAIN.action(row, VIEWER, files_intact=False) is Action.SKIP


@pytest.mark.parametrize("state", [State.UNCERTAIN, State.FAILED, State.EXPIRED])
def test_what_failed_after_the_run_began_is_not_resubmitted_by_it(state: State) -> None:
    assert AGAIN.action(make_row(state, failed_at=100.5), VIEWER, files_intact=False) is Action.REPORT


def test_a_row_that_nobody_was_billed_for_is_submitted_by_any_account() -> None:
    row = make_row(State.PLANNED, account=THEIRS)
    assert AGAIN.action(row, VIEWER, files_intact=False) is Action.SUBMIT
    billed = attrs.evolve(row, uncertain_attempts=1)
    assert AGAIN.action(billed, VIEWER, files_intact=False) is Action.REFUSE


@pytest.mark.parametrize("state", [State.ACCEPTED, State.COMPLETED, State.SAVED, State.FAILED])
def test_a_row_that_another_account_pays_for_is_left_alone(state: State) -> None:
    assert AGAIN.action(make_row(state, account=THEIRS), VIEWER, files_intact=False) is Action.REFUSE
    assert AGAIN.action(make_row(state, account=None), VIEWER, files_intact=False) is not Action.REFUSE
