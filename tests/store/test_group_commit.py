"""Group commit: what is written together, in which order, and what becomes of steps while the store fails."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from attrs import define, field
from hypothesis import given, strategies as st
from session_support import turn_loop, until
from store_support import new_row, new_step
from unreliable_store import Fault, UnreliableStore

from kontext_async.errors import SessionClosed, StoreError, StoreUnavailable, StoreUnusable
from kontext_async.store.availability import Availability
from kontext_async.store.group_commit import LONGEST, SHORTEST, GroupCommitter, gather_seconds
from kontext_async.store.rows import RowStep, StepResult
from kontext_async.store.step_queue import QueuedStep, StepQueue
from kontext_async.store.steps import (
    Accepted,
    Completed,
    Intended,
    Received,
    Resubmitted,
    State,
    Step,
    Uncertain,
    Verdict,
    Withdrawn,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kontext_async.store.rows import Row

pytestmark = pytest.mark.anyio

LEASE = 60.0
ACTIONS = st.lists(st.sampled_from([1, 2, 3, "take", "finish", "fail"]))
"""Add a step of a row; take a group; end the oldest group, written or not."""


async def settle(item: QueuedStep) -> StepResult:
    """Wait for a step, and return what became of it."""
    await item.wait()
    return item.result()


@define
class Play:
    """A queue, its groups in flight, and the steps that were added and written."""

    limit: int
    queue: StepQueue = field(factory=StepQueue)
    groups: list[list[QueuedStep]] = field(factory=list)
    added: list[QueuedStep] = field(factory=list)
    written: list[QueuedStep] = field(factory=list)

    def act(self, action: int | str) -> None:
        if isinstance(action, int):
            self.added.append(QueuedStep(action, new_step(Received, 1)))
            self.queue.add(self.added[-1])
        elif action == "take":
            self.take()
        elif self.groups:
            group = self.groups.pop(0)
            self.queue.finish(group, group if action == "fail" else ())
            self.written += group if action == "finish" else ()

    def take(self) -> None:
        group = self.queue.take(self.limit)
        assert len(group) <= self.limit
        assert not {item.row for item in group} & {item.row for each in self.groups for item in each}
        self.groups += [group] if group else []


@given(ACTIONS, st.integers(1, 4))
def test_steps_of_one_row_are_written_in_order_and_never_in_two_groups(actions: list[int | str], limit: int) -> None:
    play = Play(limit)
    for action in actions:
        play.act(action)
        assert len(list(play.queue)) == len(play.added) - len(play.written)
    while play.queue:
        play.act("take")
        play.act("finish")
    for row in (1, 2, 3):
        assert [item for item in play.written if item.row == row] == [item for item in play.added if item.row == row]


def test_an_intent_is_the_last_step_of_its_row_in_a_group() -> None:
    queue = StepQueue()
    items = [QueuedStep(1, new_step(kind, 1)) for kind in (Withdrawn, Intended, Withdrawn)]
    other = QueuedStep(2, new_step(Received, 1))
    for item in (*items, other):
        queue.add(item)
    group = queue.take(500)
    assert group == [*items[:2], other]
    queue.finish(group)
    assert queue.take(500) == items[2:]


def test_a_step_in_flight_is_not_removed() -> None:
    queue = StepQueue()
    first, second = QueuedStep(1, new_step(Received, 1)), QueuedStep(1, new_step(Received, 1))
    queue.add(first)
    queue.add(second)
    queue.take(1)
    assert not queue.remove(first)
    assert queue.remove(second)
    assert list(queue) == [first]


def test_rows_of_repeated_steps_come_last_with_their_later_steps() -> None:
    queue = StepQueue()
    items = {row: [QueuedStep(row, new_step(Received, 1)) for _ in range(3)] for row in (1, 2)}
    for item in (items[1][0], items[2][0], items[1][1], items[2][1]):
        queue.add(item)
    failed = queue.take(1)
    assert failed == items[1][:1]
    other = queue.take(1)
    assert other == items[2][:1]
    queue.add(items[1][2])
    queue.finish(failed, failed)
    queue.finish(other)
    assert queue.take(500) == [items[2][1], *items[1]]


async def test_a_waiter_that_is_cancelled_affects_no_other() -> None:
    item = QueuedStep(1, new_step(Received, 1))
    leaving, staying = (asyncio.create_task(item.wait()) for _ in range(2))
    await turn_loop(3)
    leaving.cancel()
    await turn_loop(3)
    assert (leaving.cancelled(), staying.done(), item.outcome) == (True, False, None)
    item.settle(StepResult(verdict=Verdict.APPLIED))
    await staying
    assert item.result().verdict is Verdict.APPLIED


async def test_an_id_is_durable_once_the_spool_has_it_or_the_store() -> None:
    spooled, written = (QueuedStep(1, new_step(Accepted, 1, task_id="t1")) for _ in range(2))
    waiting = [asyncio.create_task(item.wait_until_durable()) for item in (spooled, written)]
    await turn_loop(3)
    written.settle(StoreUnavailable("the store is closed"))
    await turn_loop(3)
    assert not any(each.done() for each in waiting), "an error does not make an ID durable"
    written.settle(StepResult(verdict=Verdict.APPLIED))
    spooled.note_spooled()
    await asyncio.gather(*waiting)
    with pytest.raises(LookupError):
        spooled.result()


def test_the_time_to_gather_grows_with_the_previous_group() -> None:
    assert [gather_seconds(steps) for steps in (0, 1, 5, 1000)] == [SHORTEST, SHORTEST, 0.02, LONGEST]


@pytest.fixture
def store() -> UnreliableStore:
    return UnreliableStore()


@pytest.fixture
def availability() -> Availability:
    return Availability("memory")


@pytest.fixture
async def committer(
    anyio_backend: str, store: UnreliableStore, availability: Availability
) -> AsyncIterator[GroupCommitter]:
    worker = await store.add_worker(b"a" * 16, LEASE)
    committer = GroupCommitter(store, worker, time_limit=0.1, availability=availability)
    yield committer
    await committer.aclose(0.1)
    assert store.broken_rules == []


@pytest.fixture
async def rows(anyio_backend: str, store: UnreliableStore) -> list[Row]:
    run = await store.open_run("default")
    assert run
    return await store.plan(run.id, [new_row(f"fox {number}") for number in range(20)])


async def test_steps_that_come_together_are_written_in_one_group(
    committer: GroupCommitter, store: UnreliableStore, rows: list[Row]
) -> None:
    items = [committer.add(row.id, new_step(Intended, 1)) for row in rows]
    results = await asyncio.gather(*(settle(item) for item in items))
    assert [result.verdict for result in results] == [Verdict.APPLIED] * len(rows)
    assert [len(group) for group in store.groups] == [len(rows)]


async def test_a_store_with_several_connections_writes_several_groups_at_once(
    availability: Availability, rows: list[Row], store: UnreliableStore
) -> None:
    store.slow = True
    store.concurrency = 3
    worker = await store.add_worker(b"b" * 16, LEASE)
    committer = GroupCommitter(store, worker, time_limit=1.0, availability=availability)
    items = []
    for row in rows[:6]:
        items += [committer.add(row.id, new_step(kind, 1)) for kind in (Intended, Withdrawn)]
        await asyncio.sleep(0.006)
    await asyncio.gather(*(settle(item) for item in items))
    await committer.aclose(1.0)
    assert store.broken_rules == []
    assert 2 <= store.most_at_once <= 6
    assert {item.result().verdict for item in items} == {Verdict.APPLIED}


@pytest.mark.parametrize("fault", list(Fault))
async def test_a_group_that_fails_is_repeated_until_it_is_written(
    fault: Fault, committer: GroupCommitter, store: UnreliableStore, rows: list[Row], availability: Availability
) -> None:
    seen: list[str] = []
    availability.on_failure.add(lambda error: seen.append(str(error)))
    availability.on_recovery.add(lambda: seen.append("recovered"))
    store.script = [fault]
    items = [committer.add(row.id, new_step(Intended, 1)) for row in rows]
    results = await asyncio.gather(*(settle(item) for item in items))
    assert {result.verdict for result in results} <= {Verdict.APPLIED, Verdict.REPEATED}
    assert len(store.groups) >= 2
    assert seen[-1] == "recovered"
    assert len(seen) == 2
    assert "INSERT" not in seen[0]
    assert availability.failure is None


async def test_a_step_that_the_database_never_takes_does_not_keep_the_others_back(
    committer: GroupCommitter, store: UnreliableStore, rows: list[Row]
) -> None:
    poison = new_step(Received, 7, at=666.0)
    store.poison = [poison]
    bad = committer.add(rows[0].id, poison)
    items = [committer.add(row.id, new_step(Intended, 1)) for row in rows[1:]]
    await asyncio.wait_for(asyncio.gather(*(settle(item) for item in items)), 10)
    assert bad.outcome is None


async def test_an_intent_that_was_never_tried_is_given_up_without_a_trace(
    committer: GroupCommitter, store: UnreliableStore, rows: list[Row]
) -> None:
    item = committer.add(rows[0].id, new_step(Intended, 1))
    committer.give_up(item)
    await settle(committer.add(rows[1].id, new_step(Intended, 1)))
    assert [each.row for group in store.groups for each in group] == [rows[1].id]


@pytest.mark.parametrize("fault", [Fault.FAIL, Fault.HANG, Fault.WRITE_AND_FAIL])
async def test_an_intent_that_may_be_written_is_withdrawn_when_it_is_given_up(
    fault: Fault, committer: GroupCommitter, store: UnreliableStore, rows: list[Row]
) -> None:
    store.faults["apply"] = fault
    item = committer.add(rows[0].id, new_step(Intended, 1))
    await until(lambda: store.groups)
    committer.give_up(item)
    store.faults.clear()
    await until(lambda: committer.is_idle)
    row = (await store.fetch([rows[0].id]))[rows[0].id]
    assert (row.state, row.attempt, row.owner) == (State.PLANNED, 1, None)
    assert store.steps[-1] == Withdrawn(attempt=1)


@pytest.mark.parametrize("kinds", [(Intended,), (Intended, Uncertain)])
async def test_an_intent_that_was_given_up_never_withdraws_the_same_attempt_of_another_worker(
    kinds: tuple[type[Step], ...], committer: GroupCommitter, store: UnreliableStore, rows: list[Row]
) -> None:
    store.faults["apply"] = Fault.FAIL
    item = committer.add(rows[0].id, new_step(Intended, 1))
    await until(lambda: store.groups)
    committer.give_up(item)
    other = await store.add_worker(b"o" * 16, LEASE)
    for kind in kinds:
        await store.share().apply(other, [RowStep(row=rows[0].id, step=new_step(kind, 1))])
    store.faults.clear()
    await until(lambda: committer.is_idle)
    row = (await store.fetch([rows[0].id]))[rows[0].id]
    assert row.state is (State.INTENT if kinds == (Intended,) else State.UNCERTAIN)
    assert not any(isinstance(step, Withdrawn) for step in store.steps)


async def test_two_callers_of_one_worker_cannot_both_win_an_attempt(
    committer: GroupCommitter, store: UnreliableStore, rows: list[Row]
) -> None:
    first = committer.add(rows[0].id, new_step(Intended, 1))
    second = committer.add(rows[0].id, new_step(Intended, 1))
    verdicts = [(await settle(first)).verdict, (await settle(second)).verdict]
    assert verdicts == [Verdict.APPLIED, Verdict.LOST]


async def test_an_attempt_can_be_won_after_the_same_one_was_given_up(
    committer: GroupCommitter, store: UnreliableStore, rows: list[Row]
) -> None:
    store.faults["apply"] = Fault.WRITE_AND_FAIL
    first = committer.add(rows[0].id, new_step(Intended, 1))
    await until(lambda: store.groups)
    committer.give_up(first)
    second = committer.add(rows[0].id, new_step(Intended, 1))
    third = committer.add(rows[0].id, new_step(Intended, 2))
    store.faults.clear()
    assert (await settle(second)).verdict is Verdict.LOST
    assert (await settle(third)).verdict is Verdict.APPLIED


async def test_a_resubmission_is_dropped_when_it_is_given_up(
    committer: GroupCommitter, store: UnreliableStore, rows: list[Row]
) -> None:
    store.faults["apply"] = Fault.FAIL
    item = committer.add(rows[0].id, new_step(Resubmitted, 1))
    await until(lambda: store.groups)
    committer.give_up(item)
    await until(lambda: committer.is_idle)


async def test_a_store_that_lasts_to_be_unusable_refuses_intents_and_keeps_the_rest(
    committer: GroupCommitter, store: UnreliableStore, rows: list[Row]
) -> None:
    store.error = StoreUnusable("the file was deleted")
    store.faults["apply"] = Fault.FAIL
    intent = committer.add(rows[0].id, new_step(Intended, 1))
    accepted = committer.add(rows[1].id, new_step(Accepted, 1, task_id="t1"))
    with pytest.raises(StoreUnusable):
        await settle(intent)
    await turn_loop(5)
    assert accepted.outcome is None
    store.faults.clear()
    assert (await settle(accepted)).verdict is Verdict.APPLIED


async def test_a_full_disk_leaves_the_reserve_to_what_was_paid_for(
    committer: GroupCommitter, store: UnreliableStore, rows: list[Row], availability: Availability
) -> None:
    store.has_reserve = True
    store.script = [Fault.FAIL]
    failures: list[StoreError] = []
    availability.on_failure.add(failures.append)
    accepted = committer.add(rows[0].id, new_step(Accepted, 1, task_id="t1"))
    intent = committer.add(rows[1].id, new_step(Intended, 1))
    completed = committer.add(rows[0].id, new_step(Completed, 1, task_id="t1"))
    with pytest.raises(StoreUnavailable):
        await settle(intent)
    assert (await settle(accepted)).verdict is (await settle(completed)).verdict is Verdict.APPLIED
    assert [type(each.step) for each in store.groups[1]] == [Accepted, Completed]
    assert len(failures) == 1
    await settle(committer.add(rows[2].id, new_step(Accepted, 1, task_id="t2")))
    with pytest.raises(StoreUnavailable):
        await settle(committer.add(rows[3].id, new_step(Intended, 1)))
    assert len(store.groups) == 3
    assert availability.failure is not None


async def test_intents_are_written_again_once_the_reserve_is_restored(
    committer: GroupCommitter, store: UnreliableStore, rows: list[Row], availability: Availability
) -> None:
    store.has_reserve = store.is_full = True
    store.script = [Fault.FAIL]
    await settle(committer.add(rows[0].id, new_step(Accepted, 1, task_id="t1")))
    committer.restore_reserve()
    with pytest.raises(StoreUnavailable):
        await settle(committer.add(rows[1].id, new_step(Intended, 1)))
    store.is_full = False
    committer.restore_reserve()
    await until(lambda: availability.failure is None)
    assert (await settle(committer.add(rows[2].id, new_step(Intended, 1)))).verdict is Verdict.APPLIED


async def test_a_group_of_intents_does_not_use_the_reserve(
    committer: GroupCommitter, store: UnreliableStore, rows: list[Row]
) -> None:
    store.has_reserve = True
    store.script = [Fault.FAIL]
    await settle(committer.add(rows[1].id, new_step(Intended, 1)))
    assert store.has_reserve


async def test_a_noted_step_that_comes_too_late_is_counted(
    committer: GroupCommitter, store: UnreliableStore, rows: list[Row]
) -> None:
    committer.add(rows[0].id, new_step(Withdrawn, 5), is_noted=True)
    await committer.flush(1.0)
    assert committer.lost == 1


async def test_flush_says_that_steps_stay_queued(
    committer: GroupCommitter, store: UnreliableStore, rows: list[Row]
) -> None:
    store.faults["apply"] = Fault.FAIL
    item = committer.add(rows[0].id, new_step(Intended, 1))
    with pytest.raises(StoreUnavailable, match="they stay queued"):
        await committer.flush(0.01)
    store.faults.clear()
    await committer.flush(5.0)
    assert item.result().verdict is Verdict.APPLIED


async def test_closing_writes_what_is_left_and_then_refuses_steps(
    committer: GroupCommitter, store: UnreliableStore, rows: list[Row]
) -> None:
    items = [committer.add(row.id, new_step(Intended, 1)) for row in rows]
    await committer.aclose(1.0)
    assert {item.result().verdict for item in items} == {Verdict.APPLIED}
    with pytest.raises(SessionClosed):
        committer.add(rows[0].id, new_step(Withdrawn, 1))


@pytest.mark.parametrize("fault", [Fault.FAIL, Fault.HANG])
async def test_closing_is_bounded_while_the_store_fails(
    fault: Fault, committer: GroupCommitter, store: UnreliableStore, rows: list[Row]
) -> None:
    store.faults["apply"] = fault
    item = committer.add(rows[0].id, new_step(Completed, 1, task_id="t1"))
    await asyncio.wait_for(committer.aclose(0.05), 1.0)
    with pytest.raises(StoreUnavailable, match="before the step was written"):
        await settle(item)
