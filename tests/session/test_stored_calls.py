"""Sessions over one store: what a caller gets, by the row of its key. The emulator's ledger knows what was billed."""

from __future__ import annotations

import asyncio
import gc
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from weakref import ref

import anyio
import pytest
from session_support import count_creates, until

from kontext_async import (
    ConfigurationError,
    GatewayUnavailable,
    Generation,
    InvalidRequest,
    KontextSession,
    RequestRejected,
    StoreUnavailable,
    SubmissionUncertain,
    TaskFailed,
    TaskTimeout,
)
from kontext_async.emulator import Emulator, Fault, FaultKind
from kontext_async.store.memory import MemoryStore
from kontext_async.store.rows import Selection
from kontext_async.store.steps import State
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from kontext_async.store.rows import Row

pytestmark = pytest.mark.anyio


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


def open_session(emulator: Emulator, store: MemoryStore | None, **options: Any) -> KontextSession:
    shared = store.share() if store else None
    given: dict[str, Any] = {"settings": FAST, "account": "tests", **options}
    return KontextSession(emulator.api_key, base_url=emulator.base_url, store=shared, **given)


@pytest.fixture
async def mine(emulator: Emulator, store: MemoryStore) -> AsyncIterator[KontextSession]:
    async with open_session(emulator, store) as session:
        yield session


@pytest.fixture
async def theirs(emulator: Emulator, store: MemoryStore) -> AsyncIterator[KontextSession]:
    async with open_session(emulator, store) as session:
        yield session


def rows_of(store: MemoryStore) -> list[Row]:
    return list(store.database.rows.values())


def kill(session: KontextSession, store: MemoryStore) -> None:
    """End the lease of a session's worker, as if its process had been killed a while ago."""
    stored = session._engine.stored
    assert stored
    store.database.alive_until[stored.worker.number] = 0.0


class TestPayingOnce:
    async def test_the_same_key_is_the_same_image_in_another_session(
        self, emulator: Emulator, mine: KontextSession, theirs: KontextSession
    ) -> None:
        first = await mine.generate("a fox", key="job-42")
        second = await theirs.generate("a fox", key="job-42")
        assert second == first
        assert count_creates(emulator) == 1
        assert await theirs.read(second.image) == await mine.read(first.image)

    async def test_a_session_started_later_gets_what_was_recorded(self, emulator: Emulator, store: MemoryStore) -> None:
        async with open_session(emulator, store) as session:
            first = await session.generate("a fox", key="job-42", seed=7)
        async with open_session(emulator, store) as session:
            second = await session.generate("a fox", key="job-42", seed=7)
        assert second == first
        assert second.usage.cost == first.usage.cost
        assert count_creates(emulator) == 1

    async def test_many_callers_of_one_key_pay_once(
        self, emulator: Emulator, mine: KontextSession, theirs: KontextSession
    ) -> None:
        async def call(session: KontextSession) -> Generation:
            return await session.generate("a fox", key="job-42")

        results = await asyncio.gather(*(call(session) for session in [mine, theirs] * 10))
        assert len({each.task_id for each in results}) == 1
        assert count_creates(emulator) == 1

    @pytest.mark.parametrize("emulator_options", [{"service_time": 30.0, "pixels": 64 * 64}])
    async def test_nothing_of_the_submission_is_kept_while_the_task_runs(self, mine: KontextSession) -> None:
        gc.collect()
        gc.disable()  # what refers to itself would be left for the collector
        calls = [asyncio.create_task(mine.generate("a fox", key=f"job-{each}")) for each in range(3)]
        stored = mine._engine.stored
        assert stored
        try:
            await until(lambda: sum(bool(each.submission) for each in stored._flights.values()) == 3)
            kept: list[Callable[[], object]] = [ref(each) for each in stored._flights.values()]
            kept += [ref(each.submission) for each in stored._flights.values() if each.submission]
            await until(lambda: not any(each() for each in kept))
            assert mine.statistics().pending == 3
        finally:
            gc.enable()
            for call in calls:
                call.cancel()
        await asyncio.wait(calls)

    async def test_a_key_is_unique_within_its_run(self, emulator: Emulator, mine: KontextSession) -> None:
        one = await mine.generate("a fox", key="job-42", run="monday")
        other = await mine.generate("a fox", key="job-42", run="tuesday")
        assert one.task_id != other.task_id
        assert count_creates(emulator) == 2

    async def test_a_task_that_another_session_has_submitted_is_followed(
        self, emulator: Emulator, mine: KontextSession, theirs: KontextSession
    ) -> None:
        task = await mine.submit("a fox", key="job-42")
        other = await theirs.submit("a fox", key="job-42")
        assert other.id == task.id
        assert (await other.wait()).task_id == (await task.wait()).task_id
        assert count_creates(emulator) == 1

    @pytest.mark.parametrize("emulator_options", [{"service_time": 30.0, "pixels": 64 * 64}])
    async def test_a_task_of_a_killed_session_is_followed(
        self, emulator: Emulator, store: MemoryStore, mine: KontextSession, theirs: KontextSession
    ) -> None:
        task = await mine.submit("a fox", key="job-42")
        kill(mine, store)
        other = await theirs.submit("a fox", key="job-42")
        assert other.id == task.id
        assert count_creates(emulator) == 1


class TestStates:
    async def test_an_uncertain_request_is_uncertain_for_everybody_until_a_resend_is_asked(
        self, emulator: Emulator, store: MemoryStore, mine: KontextSession, theirs: KontextSession
    ) -> None:
        emulator.faults.script("create", [FaultKind.CUT_AFTER_ACCEPT])
        with pytest.raises(SubmissionUncertain):
            await mine.generate("a fox", key="job-42")
        with pytest.raises(SubmissionUncertain):
            await theirs.generate("a fox", key="job-42")
        assert count_creates(emulator) == 1
        assert [row.state for row in rows_of(store)] == [State.UNCERTAIN]
        asked = [theirs.generate("a fox", key="job-42", resend_uncertain=True) for _ in range(5)]
        results = await asyncio.gather(*asked, mine.generate("a fox", key="job-42", resend_uncertain=True))
        assert len({each.task_id for each in results}) == 1
        assert count_creates(emulator) == 2

    async def test_the_intent_of_a_killed_session_becomes_uncertain(
        self, emulator: Emulator, store: MemoryStore, mine: KontextSession, theirs: KontextSession
    ) -> None:
        emulator.faults.script("create", [Fault(kind=FaultKind.SLOW_AFTER_ACCEPT, seconds=1.5)])
        sending = asyncio.ensure_future(mine.generate("a fox", key="job-42"))
        await until(lambda: count_creates(emulator) == 1)
        waiting = asyncio.ensure_future(theirs.generate("a fox", key="job-42"))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        kill(mine, store)
        with pytest.raises(SubmissionUncertain):
            await waiting
        sending.cancel()
        await asyncio.wait([sending])

    async def test_a_failed_task_fails_for_everybody_until_a_retry_is_asked(
        self, emulator: Emulator, mine: KontextSession, theirs: KontextSession
    ) -> None:
        emulator.faults.script("create", [FaultKind.TASK_FAILS])
        with pytest.raises(TaskFailed) as first:
            await mine.generate("a fox", key="job-42")
        with pytest.raises(TaskFailed) as second:
            await theirs.generate("a fox", key="job-42")
        assert str(second.value) == str(first.value)
        assert second.value.code == first.value.code
        assert count_creates(emulator) == 1
        asked = [each.generate("a fox", key="job-42", retry_failed=True) for each in (mine, theirs, mine)]
        assert len({each.task_id for each in await asyncio.gather(*asked)}) == 1
        assert count_creates(emulator) == 2

    async def test_a_rejected_request_is_rejected_for_everybody(
        self, emulator: Emulator, mine: KontextSession, theirs: KontextSession
    ) -> None:
        with pytest.raises(RequestRejected) as first:
            await mine.generate("a fox", key="job-42", model="no-such-model")
        with pytest.raises(RequestRejected) as second:
            await theirs.generate("a fox", key="job-42", model="no-such-model")
        assert second.value.status == first.value.status
        assert count_creates(emulator) == 1

    async def test_a_key_that_was_used_for_another_request_is_refused(
        self, emulator: Emulator, mine: KontextSession
    ) -> None:
        await mine.generate("a fox", key="job-42")
        with pytest.raises(InvalidRequest, match="another request") as caught:
            await mine.generate("a hare", key="job-42")
        assert caught.value.field == "key"
        assert count_creates(emulator) == 1

    async def test_a_key_of_another_account_is_refused_unless_it_is_completed(
        self, emulator: Emulator, store: MemoryStore, mine: KontextSession
    ) -> None:
        done = await mine.generate("a fox", key="done")
        emulator.faults.script("create", [FaultKind.TASK_FAILS])
        with pytest.raises(TaskFailed):
            await mine.generate("a fox", key="failed")
        async with open_session(emulator, store, account="other") as other:
            assert await other.generate("a fox", key="done") == done
            with pytest.raises(ConfigurationError, match=r"'tests'.*'other'"):
                await other.generate("a fox", key="failed", retry_failed=True)


class TestDeadlines:
    @pytest.mark.parametrize("emulator_options", [{"service_time": 30.0, "pixels": 64 * 64}])
    async def test_a_task_that_another_session_submitted_times_out_with_its_id(
        self, mine: KontextSession, theirs: KontextSession
    ) -> None:
        task = await mine.submit("a fox", key="job-42")
        with pytest.raises(TaskTimeout) as caught:
            await theirs.generate("a fox", key="job-42", timeout=0.2)
        assert caught.value.task_id == task.id

    async def test_an_intent_of_another_session_is_uncertain_at_the_deadline(
        self, emulator: Emulator, mine: KontextSession, theirs: KontextSession
    ) -> None:
        emulator.faults.script("create", [Fault(kind=FaultKind.SLOW_AFTER_ACCEPT, seconds=2)])
        sending = asyncio.ensure_future(mine.submit("a fox", key="job-42"))
        await until(lambda: count_creates(emulator) == 1)
        with pytest.raises(SubmissionUncertain):
            await theirs.generate("a fox", key="job-42", timeout=0.1)
        await sending

    async def test_a_slot_that_never_becomes_free_leaves_the_row_planned(
        self, emulator: Emulator, store: MemoryStore
    ) -> None:
        from attrs import evolve

        one = evolve(FAST, limits=evolve(FAST.limits, max_in_flight=1))
        emulator.faults.script("create", [Fault(kind=FaultKind.SLOW_AFTER_ACCEPT, seconds=2)])
        async with open_session(emulator, store, settings=one) as session:
            first = asyncio.ensure_future(session.submit("a fox"))
            await until(lambda: count_creates(emulator) == 1)
            with pytest.raises(GatewayUnavailable):
                await session.generate("a hare", key="job-42", timeout=0.1)
            assert [row.state for row in rows_of(store) if row.key == "job-42"] == [State.PLANNED]
            await first


class TestCancellation:
    async def test_one_of_two_callers_that_leaves_does_not_disturb_the_other(
        self, emulator: Emulator, mine: KontextSession
    ) -> None:
        emulator.faults.script("create", [Fault(kind=FaultKind.SLOW_AFTER_ACCEPT, seconds=0.2)])
        leaving = asyncio.ensure_future(mine.generate("a fox", key="job-42"))
        staying = asyncio.ensure_future(mine.generate("a fox", key="job-42"))
        await until(lambda: count_creates(emulator) == 1)
        leaving.cancel()
        assert (await staying).images
        assert count_creates(emulator) == 1

    async def test_the_id_of_a_request_whose_only_caller_left_is_in_the_store(
        self, emulator: Emulator, store: MemoryStore, mine: KontextSession
    ) -> None:
        emulator.faults.script("create", [Fault(kind=FaultKind.SLOW_AFTER_ACCEPT, seconds=0.2)])
        leaving = asyncio.ensure_future(mine.generate("a fox", key="job-42"))
        await until(lambda: count_creates(emulator) == 1)
        leaving.cancel()
        await asyncio.wait([leaving])
        assert leaving.cancelled()
        again = await mine.generate("a fox", key="job-42")
        assert count_creates(emulator) == 1
        assert [row.task_id for row in rows_of(store)] == [again.task_id]


class TestWithoutKey:
    async def test_the_row_is_deleted_once_its_caller_has_the_image(
        self, emulator: Emulator, store: MemoryStore
    ) -> None:
        async with open_session(emulator, store) as session:
            await session.generate("a fox")
        assert rows_of(store) == []
        assert emulator.ledger.accepted == 1

    async def test_a_batch_leaves_no_rows(self, emulator: Emulator, store: MemoryStore) -> None:
        async with open_session(emulator, store) as session:
            outcomes = await session.generate_all([f"fox {number}" for number in range(20)])
        assert all(outcome.generation for outcome in outcomes)
        assert rows_of(store) == []
        assert next(iter(store.database.runs.values())).spent == sum(
            outcome.generation.usage.cost or 0 for outcome in outcomes if outcome.generation
        )

    async def test_what_was_paid_for_a_killed_session_is_recovered(
        self, emulator: Emulator, store: MemoryStore, mine: KontextSession, theirs: KontextSession
    ) -> None:
        task = await mine.submit("a fox")
        keyed = await mine.submit("a hare", key="job-42", run="monday")
        await until(lambda: task.last_status is not None)
        kill(mine, store)
        found = {each.task.id: each async for each in theirs.recover() if each.task}
        assert set(found) == {task.id, keyed.id}
        assert (found[keyed.id].key, found[keyed.id].run) == ("job-42", "monday")
        for each in found.values():
            assert each.task
            assert (await each.task.wait()).images
        assert [each async for each in theirs.recover()] == []
        assert count_creates(emulator) == 2

    async def test_only_the_asked_run_is_recovered(
        self, store: MemoryStore, mine: KontextSession, theirs: KontextSession
    ) -> None:
        await mine.submit("a fox", key="a", run="monday")
        await mine.submit("a fox", key="a", run="tuesday")
        kill(mine, store)
        assert [each.run async for each in theirs.recover("tuesday")] == ["tuesday"]
        assert [each async for each in theirs.recover("friday")] == []


class TestForgetting:
    async def test_rows_that_ended_before_a_time_are_deleted(self, store: MemoryStore, mine: KontextSession) -> None:
        await mine.generate("a fox", key="job-42")
        now = datetime.now(UTC)
        assert await mine.forget(before=now - timedelta(hours=1)) == 0
        assert await mine.forget(before=now + timedelta(hours=1)) == 1
        assert rows_of(store) == []

    async def test_a_time_without_a_zone_is_refused(self, mine: KontextSession) -> None:
        with pytest.raises(InvalidRequest, match="time zone"):
            await mine.forget(before=datetime(2026, 1, 1))  # noqa: DTZ001 # the fault


class TestConfiguration:
    async def test_a_key_without_a_store_is_refused(self, emulator: Emulator) -> None:
        async with open_session(emulator, None, account=None) as session:
            given: list[dict[str, Any]] = [
                {"key": "a"},
                {"run": "a"},
                {"resend_uncertain": True},
                {"retry_failed": True},
            ]
            for options in given:
                with pytest.raises(ConfigurationError, match="needs a store"):
                    await session.generate("a fox", **options)
            with pytest.raises(ConfigurationError, match="no store"):
                await anext(session.recover())
        assert count_creates(emulator) == 0

    @pytest.mark.parametrize("key", ["", "a\nb", "x" * 513, 7, None])
    async def test_a_key_that_is_not_allowed_is_refused(
        self, emulator: Emulator, mine: KontextSession, key: Any
    ) -> None:
        with pytest.raises(InvalidRequest) as caught:
            await mine.generate("a fox", key=key, run=key)
        assert caught.value.field in ("key", "run")
        assert count_creates(emulator) == 0

    async def test_the_account_is_a_keyed_hash_unless_it_has_a_name(
        self, emulator: Emulator, store: MemoryStore
    ) -> None:
        async with open_session(emulator, store, account=None), open_session(emulator, store, account="team"):
            names = {account.name for account in store.database.accounts}
        assert "team" in names
        assert len(names) == 2
        assert not any(str(emulator.api_key) in name for name in names)
        assert {account.base for account in store.database.accounts} == {emulator.base_url}


class FailingStore(MemoryStore):
    """A store that cannot be written while it is broken."""

    broken = False

    async def apply(self, worker: int, steps: Any) -> Any:
        self._check()
        return await super().apply(worker, steps)

    async def plan(self, run: int, rows: Any, **options: Any) -> Any:
        self._check()
        return await super().plan(run, rows, **options)

    def _check(self) -> None:
        if self.broken:
            raise StoreUnavailable("the database is gone")


class TestFailures:
    async def test_nothing_is_sent_while_the_store_cannot_be_written(self, emulator: Emulator) -> None:
        from attrs import evolve

        store = FailingStore()
        settings = evolve(FAST, store=evolve(FAST.store, step=1.5))
        async with KontextSession(
            emulator.api_key, base_url=emulator.base_url, store=store, settings=settings
        ) as session:
            store.broken = True
            with pytest.raises(StoreUnavailable):
                await session.generate("a fox", key="job-42")
            assert count_creates(emulator) == 0
            store.broken = False
            assert (await session.generate("a fox", key="job-42")).images
        assert count_creates(emulator) == 1

    async def test_an_image_is_handed_out_although_its_result_cannot_be_written(self, emulator: Emulator) -> None:
        store = FailingStore()
        async with KontextSession(emulator.api_key, base_url=emulator.base_url, store=store, settings=FAST) as session:
            task = await session.submit("a fox", key="job-42")
            store.broken = True
            with anyio.fail_after(10):
                assert (await task.wait()).images
            store.broken = False
        rows = await store.page(Selection(states=frozenset({State.COMPLETED})))
        assert [row.task_id for row in rows] == [task.id]
