"""The table of states and steps, read as a table; and what no order of steps can lead to."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, strategies as st
from store_support import PRICE, STEPS, new_step

from kontext_async.store.outcomes import decide
from kontext_async.store.rows import Row, SecondTask
from kontext_async.store.states import SHOWN_BY, TRANSITIONS, advance, judge, sources_of
from kontext_async.store.steps import (
    Accepted,
    Adopted,
    Completed,
    Expired,
    Failed,
    Forgotten,
    Intended,
    Resubmitted,
    State,
    Step,
    Uncertain,
    Verdict,
    Withdrawn,
)

MINE, OTHER = 1, 2
WITH_TASK = {State.ACCEPTED, State.COMPLETED, State.SAVED, State.FAILED, State.EXPIRED}


def row_in(state: State, **details: Any) -> Row:
    """Return a row after its second attempt, which `MINE` has made."""
    values: dict[str, Any] = {
        "id": 1,
        "run": 1,
        "key": "fox",
        "state": state,
        "attempt": 2,
        "owner": MINE,
        "owner_alive": True,
        "account": 1,
        "digest": b"d" * 32,
        "model": "pro",
        "images": 0,
        "prompt": "a fox",
        "task_id": "task-2" if state in WITH_TASK else None,
        "files": (("fox.jpg", 3),) if state is State.SAVED else (),
    }
    return Row(**values | details)


def step_of(kind: type[Step], attempt: int) -> Step:
    """Return a step of an attempt, with the task of that attempt."""
    details = {"task_id": f"task-{attempt}"} if kind in (Accepted, Completed, Failed, Expired) else {}
    return new_step(kind, attempt + (kind is Intended), **details)


def cell(row: Row, step: Step, worker: int) -> str:
    verdict = judge(row, step, worker)
    if verdict is Verdict.APPLIED:
        return str(advance(row, step, worker).state)
    return {Verdict.REPEATED: "again", Verdict.SECOND_TASK: "second", Verdict.LOST: "."}[verdict]


def table_of(worker: int, attempt: int, **details: Any) -> str:
    """Return the table of all states and steps: the new state, or what else becomes of the step."""
    rows = [("", *(kind.__name__.lower() for kind in STEPS))]
    for state in State:
        row = row_in(state, **details)
        rows.append((str(state), *(cell(row, step_of(kind, attempt), worker) for kind in STEPS)))
    return "\n".join("".join(f"{text:12}" for text in line).rstrip() for line in rows)


COLUMNS = """
            intended    accepted    adopted     withdrawn   uncertain   orphaned    completed   failed      expired     resubmitted saved       fileslost   received    forgotten
""".strip("\n")  # noqa: E501 # a table

ANOTHER_WORKER = """
planned     intent      accepted    .           again       .           .           second      second      second      again       .           .           .           planned
intent      .           accepted    .           planned     uncertain   .           second      second      second      .           .           .           .           .
uncertain   .           accepted    .           planned     uncertain   again       second      second      second      planned     .           .           .           .
accepted    .           again       .           .           .           .           finished    failed      expired     .           .           .           .           .
finished    .           again       .           .           .           .           again       failed      expired     .           saved       again       finished    finished
saved       .           again       .           .           .           .           again       .           .           .           again       finished    saved       .
failed      .           again       .           .           .           .           .           again       .           planned     .           .           failed      failed
expired     .           again       .           .           .           .           finished    .           again       planned     .           .           expired     expired
"""  # noqa: E501

DEAD_OWNER = """
planned     intent      accepted    .           again       .           .           second      second      second      again       .           .           .           planned
intent      .           accepted    .           planned     uncertain   uncertain   second      second      second      .           .           .           .           .
uncertain   .           accepted    .           planned     uncertain   again       second      second      second      planned     .           .           .           .
accepted    .           again       accepted    .           .           .           finished    failed      expired     .           .           .           .           .
finished    .           again       finished    .           .           .           again       failed      expired     .           saved       again       finished    finished
saved       .           again       .           .           .           .           again       .           .           .           again       finished    saved       .
failed      .           again       .           .           .           .           .           again       .           planned     .           .           failed      failed
expired     .           again       .           .           .           .           finished    .           again       planned     .           .           expired     expired
"""  # noqa: E501

OWNER_ITSELF = """
planned     intent      accepted    .           again       .           .           second      second      second      again       .           .           .           planned
intent      .           accepted    .           planned     uncertain   .           second      second      second      .           .           .           .           .
uncertain   .           accepted    .           planned     uncertain   again       second      second      second      planned     .           .           .           .
accepted    .           again       again       .           .           .           finished    failed      expired     .           .           .           .           .
finished    .           again       again       .           .           .           again       failed      expired     .           saved       again       finished    finished
saved       .           again       .           .           .           .           again       .           .           .           again       finished    saved       .
failed      .           again       .           .           .           .           .           again       .           planned     .           .           failed      failed
expired     .           again       .           .           .           .           finished    .           again       planned     .           .           expired     expired
"""  # noqa: E501

EARLIER_ATTEMPT = """
planned     .           accepted    .           .           .           .           second      second      second      .           .           .           .           .
intent      .           second      .           .           .           .           second      second      second      .           .           .           .           .
uncertain   .           accepted    .           .           .           .           second      second      second      .           .           .           .           .
accepted    .           second      .           .           .           .           second      second      second      .           .           .           .           .
finished    .           second      .           .           .           .           second      second      second      .           .           .           .           .
saved       .           second      .           .           .           .           second      second      second      .           again       .           .           .
failed      .           second      .           .           .           .           second      second      second      .           .           .           .           .
expired     .           second      .           .           .           .           second      second      second      .           .           .           .           .
"""  # noqa: E501

UNKNOWN_ATTEMPT = """
planned     .           accepted    .           .           .           .           second      second      second      .           .           .           .           .
intent      .           accepted    .           .           .           .           second      second      second      .           .           .           .           .
uncertain   .           accepted    .           .           .           .           second      second      second      .           .           .           .           .
accepted    .           second      .           .           .           .           second      second      second      .           .           .           .           .
finished    .           second      .           .           .           .           second      second      second      .           .           .           .           .
saved       .           second      .           .           .           .           second      second      second      .           again       .           .           .
failed      .           second      .           .           .           .           second      second      second      .           .           .           .           .
expired     .           second      .           .           .           .           second      second      second      .           .           .           .           .
"""  # noqa: E501


@pytest.mark.parametrize(
    ("expected", "worker", "attempt", "alive"),
    [
        pytest.param(ANOTHER_WORKER, OTHER, 2, True, id="of another worker"),
        pytest.param(DEAD_OWNER, OTHER, 2, False, id="after the owner died"),
        pytest.param(OWNER_ITSELF, MINE, 2, True, id="of the owner"),
        pytest.param(EARLIER_ATTEMPT, OTHER, 1, True, id="of an earlier attempt"),
        pytest.param(UNKNOWN_ATTEMPT, OTHER, 3, True, id="of an attempt that the row does not know"),
    ],
)
def test_what_becomes_of_each_step_in_each_state(expected: str, worker: int, attempt: int, alive: bool) -> None:  # noqa: FBT001
    assert table_of(worker, attempt, owner_alive=alive) == COLUMNS + expected.rstrip("\n")


@pytest.mark.parametrize(
    ("state", "expected"),
    [(state, Verdict.APPLIED) for state in (State.PLANNED, State.INTENT, State.UNCERTAIN)]
    + [(state, Verdict.LOST) for state in (State.ACCEPTED, State.COMPLETED, State.SAVED)],
)
def test_a_rejected_request_fails_only_while_the_row_has_no_task(state: State, expected: Verdict) -> None:
    assert judge(row_in(state), new_step(Failed, 2, task_id=None), MINE) is expected


def test_a_later_rejection_does_not_fail_the_accepted_task_of_an_earlier_attempt() -> None:
    row = row_in(State.ACCEPTED, task_id="task-1")
    assert judge(row, new_step(Failed, 2, task_id=None), MINE) is Verdict.LOST


@pytest.mark.parametrize(
    ("kind", "state", "attempt"), [(Intended, State.PLANNED, 3), (Adopted, State.ACCEPTED, 2)], ids=["create", "adopt"]
)
def test_only_the_account_that_pays_takes_a_row(kind: type[Step], state: State, attempt: int) -> None:
    step = new_step(kind, attempt, account=7)
    theirs = row_in(state, owner=None, owner_alive=False, account=1, uncertain_attempts=1)
    assert judge(theirs, step, OTHER) is Verdict.LOST
    assert judge(row_in(state, owner=None, owner_alive=False, account=7), step, OTHER) is Verdict.APPLIED
    nobodys = row_in(state, owner=None, owner_alive=False, account=None)
    assert judge(nobodys, step, OTHER) is Verdict.APPLIED
    assert advance(nobodys, step, OTHER).account == 7


def test_a_repeated_intent_is_recognized_by_its_owner_only() -> None:
    row, step = row_in(State.INTENT), new_step(Intended, 2)
    assert judge(row, step, MINE) is Verdict.REPEATED
    assert judge(row, step, OTHER) is Verdict.LOST


def test_a_row_that_is_gone_is_forgotten_and_nothing_else() -> None:
    assert judge(None, new_step(Forgotten, 2), MINE) is Verdict.REPEATED
    assert all(judge(None, step_of(kind, 2), MINE) is Verdict.LOST for kind in STEPS if kind is not Forgotten)


def test_the_table_knows_every_state_and_every_step() -> None:
    assert set(TRANSITIONS) == set(State)
    assert {kind for steps in TRANSITIONS.values() for kind in steps} == set(STEPS)
    assert sources_of(Intended) == {State.PLANNED}
    assert set(SHOWN_BY) == set(STEPS) - {Uncertain, Forgotten}


def test_a_late_response_leaves_a_later_uncertain_attempt_uncertain() -> None:
    row = row_in(State.UNCERTAIN, uncertain_attempts=1)
    assert advance(row, step_of(Accepted, 2), MINE).uncertain_attempts == 1  # the first attempt
    assert advance(row, step_of(Accepted, 1), MINE).uncertain_attempts == 1  # the second one
    assert advance(row_in(State.PLANNED, uncertain_attempts=1), step_of(Accepted, 2), MINE).uncertain_attempts == 0


def test_an_error_without_a_cost_keeps_the_cost_of_the_row() -> None:
    row = row_in(State.COMPLETED, cost=PRICE)
    assert advance(row, step_of(Expired, 2), MINE).cost == PRICE


class Ledger:
    """One row, and what has happened to it."""

    def __init__(self) -> None:
        self.row: Row | None = row_in(
            State.PLANNED, attempt=0, owner=None, owner_alive=False, account=None, files=(), task_id=None
        )
        self.second_tasks: dict[str, SecondTask] = {}
        self.spent = Decimal(0)
        self.sent: set[int] = set()
        self.resubmitted = 0

    def take(self, step: Step, worker: int, *, others_alive: bool) -> Verdict:
        before = self.row and evolve(self.row, owner_alive=self.row.owner == worker or others_alive)
        outcome = decide(before, step, worker, run="default", second_tasks=self.second_tasks)
        self.row, self.second_tasks = outcome.row, dict(outcome.second_tasks)
        self.spent += outcome.spent
        self.resubmitted += isinstance(step, Resubmitted) and outcome.verdict is Verdict.APPLIED
        return outcome.verdict

    @property
    def recorded(self) -> set[str]:
        own = {self.row.task_id} if self.row and self.row.task_id else set()
        assert not own & set(self.second_tasks)
        return own | set(self.second_tasks)


HONEST = [kind for kind in STEPS if kind not in (Intended, Withdrawn, Forgotten)]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([Intended, Intended, Withdrawn, *HONEST]),
            st.integers(0, 4),
            st.sampled_from([MINE, OTHER]),
            st.booleans(),
        ),
        max_size=30,
    )
)
def test_no_order_of_steps_pays_twice_unasked_or_loses_a_task(
    steps: list[tuple[type[Step], int, int, bool]],
) -> None:
    ledger, accepted, billed = Ledger(), set[str](), set[str]()
    for kind, attempt, worker, alive in steps:
        number = attempt + (kind is Intended)
        if kind in (Accepted, Completed, Failed, Expired) and attempt not in ledger.sent:
            continue  # only a request that was sent is accepted
        if kind is Withdrawn and f"task-{attempt}" in accepted:
            continue  # and one that was accepted is never taken for refused
        verdict = ledger.take(step_of(kind, attempt), worker, others_alive=alive)
        if kind is Intended and verdict in (Verdict.APPLIED, Verdict.REPEATED):
            ledger.sent.add(number)
        if kind is Withdrawn:
            ledger.sent.discard(number)
        if kind in (Accepted, Completed, Failed, Expired):
            accepted.add(f"task-{attempt}")
        if kind is Completed and verdict is not Verdict.LOST:
            billed.add(f"task-{attempt}")
        assert ledger.recorded == accepted
        assert len(ledger.sent) <= 1 + ledger.resubmitted
        assert ledger.row is not None
        costs = [ledger.row.cost, *(task.cost for task in ledger.second_tasks.values())]
        assert ledger.spent == sum((cost for cost in costs if cost is not None), Decimal(0))
        assert ledger.spent <= PRICE * len(billed)
