"""Sessions of each gateway over one store: a row has all that leads to its task again."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from gateway_sessions import connect, end_lease, new_emulator, store_of
from session_support import decode_format

from kontext_async import ConfigurationError, InvalidRequest, InvalidResponse, KontextSession, TaskModerated
from kontext_async.emulator import Emulator, Fault, FaultKind
from kontext_async.gateways import GATEWAYS, Reference
from kontext_async.store.memory import MemoryDatabase, MemoryStore
from kontext_async.store.rows import RowStep, Selection
from kontext_async.store.steps import Accepted, State, Verdict

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kontext_async.store.rows import Row

pytestmark = pytest.mark.anyio

NAMES = tuple(GATEWAYS)


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    gateway: str = request.param
    return gateway


@pytest.fixture
def emulator_options() -> dict[str, Any]:
    return {"service_time": 0.3, "pixels": 64 * 64}


@pytest.fixture
async def emulator(anyio_backend: str, emulator_options: dict[str, Any]) -> AsyncIterator[Emulator]:
    async with new_emulator(**emulator_options) as running:
        yield running


def open_session(name: str, emulator: Emulator, place: MemoryDatabase | str, **options: Any) -> KontextSession:
    store = MemoryStore(place) if isinstance(place, MemoryDatabase) else place
    return connect(name, emulator, store=store, account="tests", **options)


async def read_rows(session: KontextSession) -> list[Row]:
    return await store_of(session).page(Selection(states=frozenset(State)), after=0)


class TestCrashes:
    async def test_the_task_of_a_killed_session_is_followed_by_another(
        self, name: str, emulator: Emulator, store_place: MemoryDatabase | str
    ) -> None:
        async with (
            open_session(name, emulator, store_place) as killed,
            open_session(name, emulator, store_place) as other,
        ):
            task = await killed.submit("a fox", key="job-42")
            await end_lease(killed)
            fox = await other.generate("a fox", key="job-42")
            assert fox.task_id == task.id
            assert decode_format(await other.read(fox.image)) == "JPEG"
            assert len(emulator.ledger.entries) == 1

    async def test_what_a_killed_session_paid_for_is_recovered_without_its_request(
        self, name: str, emulator: Emulator, store_place: MemoryDatabase | str
    ) -> None:
        async with (
            open_session(name, emulator, store_place) as killed,
            open_session(name, emulator, store_place) as other,
        ):
            task = await killed.submit("a fox")
            await end_lease(killed)
            [recovered] = [each async for each in other.recover()]
            assert recovered.task
            assert recovered.task.reference == task.reference
            assert (await recovered.task.wait()).task_id == task.id
            assert len(emulator.ledger.entries) == 1

    async def test_many_tasks_of_a_killed_session_are_paid_once(
        self, name: str, emulator: Emulator, store_place: MemoryDatabase | str
    ) -> None:
        keys = [f"job-{number}" for number in range(12)]
        async with (
            open_session(name, emulator, store_place) as killed,
            open_session(name, emulator, store_place) as other,
        ):
            tasks = await asyncio.gather(*(killed.submit(f"fox {key}", key=key) for key in keys))
            await end_lease(killed)
            foxes = await asyncio.gather(*(other.generate(f"fox {key}", key=key) for key in keys))
            assert [fox.task_id for fox in foxes] == [task.id for task in tasks]
            assert emulator.ledger.billed == len(keys)

    async def test_an_image_is_read_from_a_fresh_url_in_a_session_that_did_not_submit_it(
        self, name: str, emulator: Emulator, store_place: MemoryDatabase | str
    ) -> None:
        async with open_session(name, emulator, store_place) as session:
            first = await session.generate("a fox", key="job-42")
        async with open_session(name, emulator, store_place) as session:
            second = await session.generate("a fox", key="job-42")
            assert second == first
            emulator.faults.script("download", ["url-expired"])
            assert decode_format(await session.read(second.image)) == "JPEG"
        assert len(emulator.ledger.entries) == 1

    async def test_a_second_paid_task_is_recovered(
        self, name: str, emulator: Emulator, store_place: MemoryDatabase | str
    ) -> None:
        async with open_session(name, emulator, store_place) as session:
            await session.generate("a fox", key="job-42")
            second = await session.submit("another fox", key="job-43")
            [row, _] = await read_rows(session)
            text = None if name == "vtrix" else str(second.reference)
            late = Accepted(attempt=row.attempt, task_id=second.id, reference=text, at=row.accepted_at or 0.0)
            assert (await store_of(session).apply(1, [RowStep(row=row.id, step=late)]))[
                0
            ].verdict is Verdict.SECOND_TASK
            tasks = [each.task async for each in session.recover()]
            assert [task.reference for task in tasks if task] == [second.reference]


class TestReferences:
    async def test_a_row_has_the_reference_where_the_id_is_not_enough(
        self, name: str, emulator: Emulator, store_place: MemoryDatabase | str
    ) -> None:
        async with open_session(name, emulator, store_place) as session:
            task = await session.submit("a fox", key="job-42")
            [row] = await read_rows(session)
            assert row.task_id == task.id
            assert row.reference == (None if name == "vtrix" else str(task.reference))

    async def test_a_row_of_another_gateway_is_refused_before_anything_is_sent(
        self, name: str, emulator: Emulator, store_place: MemoryDatabase | str
    ) -> None:
        async with open_session(name, emulator, store_place) as session:
            await session.submit("a fox", key="job-42")
        other = next(each for each in NAMES if each != name)
        async with open_session(other, emulator, store_place) as session:
            seen = len(emulator.requests)
            with pytest.raises(ConfigurationError, match=rf"\({name}\).*\({other}\)"):
                await session.generate("a fox", key="job-42")
            assert [each async for each in session.recover()] == []
            assert len(emulator.requests) == seen

    async def test_a_task_whose_host_is_not_trusted_stays_accepted_for_a_session_that_trusts_it(
        self, emulator: Emulator, store_place: MemoryDatabase | str
    ) -> None:
        async with open_session("bfl", emulator, store_place, trusted_hosts=()) as session:
            with pytest.raises(InvalidResponse) as first:
                await session.generate("a fox", key="job-42")
            [row] = await read_rows(session)
            assert (row.state, row.task_id) == (State.ACCEPTED, first.value.task_id)
        async with open_session("bfl", emulator, store_place, trusted_hosts=()) as session:
            with pytest.raises(InvalidRequest, match="trusted_hosts") as again:
                await session.generate("a fox", key="job-42")
            assert again.value.task_id == first.value.task_id
            assert again.value.may_be_charged
        async with open_session("bfl", emulator, store_place) as session:
            assert (await session.generate("a fox", key="job-42")).task_id == first.value.task_id
        assert len(emulator.ledger.entries) == 1

    async def test_a_text_in_a_row_that_is_no_reference_is_an_error_and_pays_for_nothing(
        self, emulator: Emulator
    ) -> None:
        database = MemoryDatabase()
        async with open_session("bfl", emulator, database) as session:
            await session.submit("a fox", key="job-42")
            await end_lease(session)
            [(number, row)] = database.rows.items()
            database.rows[number] = row.with_changes({"reference": "bfl:fox@http://[", "owner_alive": False})
        async with open_session("bfl", emulator, database) as session:
            with pytest.raises(InvalidRequest, match="reference"):
                await session.generate("a fox", key="job-42")
        assert len(emulator.ledger.entries) == 1

    async def test_an_id_of_a_single_cluster_is_followed_at_its_address_elsewhere(
        self, emulator: Emulator, store_place: MemoryDatabase | str
    ) -> None:
        async with open_session("bfl", emulator, store_place, single_cluster=True) as session:
            task = await session.submit("a fox", key="job-42")
        async with open_session("bfl", emulator, store_place) as session:
            assert (await session.generate("a fox", key="job-42")).task_id == task.id
            assert isinstance(task.reference, Reference)
        assert len(emulator.ledger.entries) == 1


class TestErrors:
    async def test_a_moderated_task_is_the_same_error_when_it_comes_from_a_store(
        self, emulator: Emulator, store_place: MemoryDatabase | str
    ) -> None:
        emulator.faults.script("create", [Fault(kind=FaultKind.TASK_MODERATED, message="Violence")])
        errors = []
        for _ in range(2):
            async with open_session("bfl", emulator, store_place) as session:
                with pytest.raises(TaskModerated) as caught:
                    await session.generate("a red fox", key="fox")
                errors.append((str(caught.value), caught.value.code, caught.value.reference))
        assert errors[0] == errors[1]
        assert str(errors[0][2]).startswith("bfl:")
        assert len(emulator.ledger.entries) == 1
