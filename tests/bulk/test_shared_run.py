"""Several workers over one run, each with a directory and a session of its own, on one store that they share."""

from __future__ import annotations

import asyncio
import time
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
import attrs
import pytest
from attrs import define
from bulk_support import ONE_AT_A_TIME, Folder

from kontext_async import ConfigurationError, KontextSession, Limits, StoreSettings
from kontext_async.bulk import BulkRun, RunRefused
from kontext_async.bulk.input import InputReader
from kontext_async.bulk.records import InputRequest, new_row
from kontext_async.emulator import Emulator
from kontext_async.store.memory import MemoryStore
from kontext_async.store.rows import Account, Row, RowStep, Selection
from kontext_async.store.steps import Accepted, Completed, Intended, Saved, State, Step
from kontext_async.store.urls import store_from_url
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from benchmarks.servers.postgres import PostgresDatabase
    from kontext_async import Settings
    from kontext_async.bulk import BulkReport
    from kontext_async.store.base import Store

pytestmark = pytest.mark.anyio

FOXES = [f"fox {number}" for number in range(30)]
LONG = 600.0
"""Seconds of a lease that does not end during a test."""


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def make_store(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Store]:
    """Make stores over one database."""
    if request.param == "memory":
        return MemoryStore().share
    url = f"sqlite:///{tmp_path}/paid.db"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgres_database").url
    return lambda: store_from_url(url, StoreSettings())


@define
class Workers:
    """Executes one run, once for each directory."""

    emulator: Emulator
    make_store: Callable[[], Store]
    path: Path

    def folder(self, name: str) -> Folder:
        """Return the directory of a worker."""
        return Folder(self.path / name)

    async def execute(
        self,
        name: str,
        requests: Sequence[Any],
        settings: Settings = FAST,
        *,
        account: str | None = None,
        **options: Any,
    ) -> BulkReport:
        """Execute the run in a directory."""
        async with KontextSession(
            self.emulator.api_key, base_url=self.emulator.base_url, settings=settings, account=account
        ) as session:
            run = BulkRun(session, self.path / name, store=self.make_store(), run="foxes", **options)
            return await run.execute(requests)

    async def execute_together(self, names: str, requests: Sequence[Any], **options: Any) -> list[BulkReport]:
        """Execute the run in several directories at the same time."""
        return await asyncio.gather(*(self.execute(name, requests, **options) for name in names))


@pytest.fixture
def workers(emulator: Emulator, make_store: Callable[[], Store], tmp_path: Path) -> Workers:
    return Workers(emulator, make_store, tmp_path)


@define
class OtherWorker:
    """A worker whose steps are taken by hand."""

    store: Store
    number: int
    account: int

    @classmethod
    async def start(cls, workers: Workers, *, lease: float = LONG) -> OtherWorker:
        store = workers.make_store()
        await store.open()
        account = Account(gateway="vtrix", base=workers.emulator.base_url, name="tests")
        return cls(store, await store.add_worker(bytes(16), lease), await store.account(account))

    async def plan(self, prompts: list[str]) -> list[Row]:
        run = await self.store.open_run("foxes", executes=True)
        assert run is not None
        reader = InputReader(prompts, 1)
        new = [new_row(entry) for entry in await reader.next() if isinstance(entry, InputRequest)]
        reader.close()
        return await self.store.plan(run.id, new, worker=self.number, execution=run.execution)

    async def take(self, row: Row, *steps: Step) -> None:
        await self.store.apply(self.number, [RowStep(row=row.id, step=step) for step in steps])

    def intended(self) -> Intended:
        return Intended(attempt=1, account=self.account, at=time.time())

    async def die(self) -> None:
        await self.store.remove_worker(self.number)
        await self.store.aclose()


async def create_task(emulator: Emulator, prompt: str) -> str:
    """Have the gateway accept a request, as a worker did that died."""
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=FAST) as session:
        return (await session.submit(prompt)).id


async def test_workers_that_read_the_same_input_pay_for_each_request_once(workers: Workers, emulator: Emulator) -> None:
    requests = [*FOXES, *["the same fox"] * 10]
    reports = await workers.execute_together("abc", requests)
    assert [report.complete for report in reports] == [True] * 3
    assert [report.completed + report.skipped for report in reports] == [40] * 3
    assert sum(report.completed for report in reports) == emulator.ledger.accepted == 40
    assert {report.total_spent for report in reports} == {Decimal("1.60")}
    lines = [line["completion"] for name in "abc" for line in workers.folder(name).results()]
    assert len(lines) == 40
    assert sum(len(workers.folder(name).images()) for name in "abc") == 40


async def test_a_worker_that_comes_when_the_run_is_complete_pays_nothing(workers: Workers, emulator: Emulator) -> None:
    await workers.execute("a", FOXES)
    report = await workers.execute("b", FOXES)
    assert (report.skipped, report.complete, report.spent) == (30, True, Decimal(0))
    assert (emulator.ledger.accepted, workers.folder("b").images()) == (30, [])


async def test_a_worker_repairs_the_images_of_its_own_directory_only(workers: Workers, emulator: Emulator) -> None:
    await workers.execute("a", FOXES[:2])
    (workers.folder("a").path / "000000-fox-0.jpg").unlink()
    assert (await workers.execute("b", FOXES[:2])).skipped == 2
    report = await workers.execute("a", FOXES[:2])
    assert (report.recovered, report.skipped) == (1, 1)
    assert len(workers.folder("a").images()) == emulator.ledger.accepted == 2


async def test_the_requests_of_a_dead_worker_are_taken_over(workers: Workers, emulator: Emulator) -> None:
    other = await OtherWorker.start(workers)
    planned, intended, accepted = await other.plan(["planned", "intended", "accepted"])
    await other.take(intended, other.intended())
    task_id = await create_task(emulator, "accepted")
    await other.take(accepted, other.intended(), Accepted(attempt=1, task_id=task_id, at=time.time()))
    await other.die()
    report = await workers.execute("a", ["planned", "intended", "accepted"], account="tests")
    assert (report.completed, report.recovered, report.uncertain_in_input) == (1, 1, 1)
    assert [each.prompt for each in report.uncertain] == ["intended"]
    assert emulator.ledger.accepted == 2
    assert planned.owner == other.number


async def test_a_worker_waits_for_the_requests_of_a_live_one_and_takes_them_over_when_it_dies(
    workers: Workers, emulator: Emulator
) -> None:
    other = await OtherWorker.start(workers)
    (row,) = await other.plan(["fox"])
    task_id = await create_task(emulator, "fox")
    await other.take(row, other.intended(), Accepted(attempt=1, task_id=task_id, at=time.time()))
    reports: list[BulkReport] = []
    async with anyio.create_task_group() as group:

        async def execute() -> None:
            reports.append(await workers.execute("a", ["fox"], account="tests"))

        group.start_soon(execute)
        await anyio.wait_all_tasks_blocked()
        await anyio.sleep(0.3)
        assert reports == []
        await other.die()
    assert (reports[0].recovered, reports[0].complete) == (1, True)
    assert emulator.ledger.accepted == 1


async def test_a_worker_ends_when_another_one_has_completed_the_last_request(
    workers: Workers, emulator: Emulator
) -> None:
    other = await OtherWorker.start(workers)
    (row,) = await other.plan(["fox"])
    await other.take(row, other.intended())
    folder = await other.store.folder(b"f" * 16, "/elsewhere")
    cost = Decimal("0.04")
    reports: list[BulkReport] = []
    async with anyio.create_task_group() as group:

        async def execute() -> None:
            reports.append(await workers.execute("a", ["fox", "wolf"], account="tests"))

        group.start_soon(execute)
        while emulator.ledger.accepted < 1:
            await anyio.sleep(0.01)
        await other.take(
            row,
            Accepted(attempt=1, task_id="t", at=time.time()),
            Completed(attempt=1, task_id="t", result={}, cost=cost, at=time.time(), folder=folder),
            Saved(attempt=1, folder=folder, files=(("fox.jpg", 9),), completion=1, at=time.time()),
        )
    await other.die()
    assert (reports[0].completed, reports[0].skipped, reports[0].complete) == (1, 1, True)
    assert (reports[0].spent, reports[0].total_spent) == (cost, 2 * cost)
    assert emulator.ledger.accepted == 1


async def test_a_planned_request_that_a_live_worker_prefers_is_submitted_at_the_end(
    workers: Workers, emulator: Emulator
) -> None:
    other = await OtherWorker.start(workers)
    await other.plan(["fox 0"])
    report = await workers.execute("a", ["fox 0", "fox 1"], settings=ONE_AT_A_TIME)
    await other.die()
    assert (report.completed, report.complete) == (2, True)
    assert [entry.prompt for entry in emulator.ledger.entries] == ["fox 1", "fox 0"]


async def test_a_run_survives_restarts_of_its_database(
    private_postgres_database: PostgresDatabase, tmp_path: Path
) -> None:
    server = private_postgres_database.server
    requests = [f"fox {number}" for number in range(150)]
    settings = attrs.evolve(FAST, limits=Limits(max_in_flight=10, polls_per_second=2000))
    async with (
        Emulator(service_time=0.1, pixels=256) as emulator,
        KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings) as session,
    ):
        run = BulkRun(session, tmp_path / "out", store=private_postgres_database.url, run="foxes")
        async with anyio.create_task_group() as group:
            group.start_soon(run.execute, requests)
            for number in (20, 60, 100):
                while emulator.ledger.accepted < number:
                    await anyio.sleep(0.01)
                await anyio.to_thread.run_sync(server.restart)
        assert run.report.complete, run.report
        assert emulator.ledger.accepted == 150
        assert emulator.ledger.billed_twice == {}


async def test_a_cost_limit_holds_for_all_workers_together(workers: Workers, emulator: Emulator) -> None:
    reports = await workers.execute_together("abc", FOXES, max_cost=Decimal("0.50"))
    assert emulator.ledger.spent == Decimal("0.48")
    assert {type(report.stopped).__name__ for report in reports} == {"CostLimitReached"}
    assert {report.total_spent for report in reports} == {Decimal("0.48")}


async def test_a_cost_limit_holds_for_all_workers_while_the_price_is_unknown(
    workers: Workers, emulator: Emulator
) -> None:
    emulator.faults.set_rate("cost-unknown", 1.0)
    await workers.execute_together("ab", FOXES, max_cost=Decimal("0.20"))
    assert emulator.ledger.spent <= Decimal("0.20")


async def test_an_uncertain_request_is_resent_once_however_many_workers_ask_for_it(
    workers: Workers, emulator: Emulator
) -> None:
    emulator.faults.script("create", ["cut-after-accept"])
    first = await workers.execute("a", ["fox"])
    assert first.uncertain_in_input == 1
    reports = await workers.execute_together("abc", ["fox"], resend_uncertain=True)
    assert [report.complete for report in reports] == [True] * 3
    assert emulator.ledger.accepted == 2


async def test_a_request_that_another_account_pays_for_is_left_alone(workers: Workers, emulator: Emulator) -> None:
    other = await OtherWorker.start(workers)
    (row,) = await other.plan(["fox"])
    await other.take(row, other.intended(), Accepted(attempt=1, task_id="t", at=time.time()))
    await other.die()
    report = await workers.execute("a", ["fox", "wolf"])
    assert (report.completed, report.failed) == (1, {"ConfigurationError": 1})
    assert emulator.ledger.accepted == 1


async def test_a_run_in_a_store_of_its_own_needs_a_name(
    workers: Workers, emulator: Emulator, make_store: Callable[[], Store], tmp_path: Path
) -> None:
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=FAST) as session:
        with pytest.raises(ConfigurationError, match="give the run a name"):
            await BulkRun(session, tmp_path / "a", store=make_store()).execute(FOXES)
        assert (await BulkRun(session, tmp_path / "b", store=make_store(), run="foxes").execute(["fox"])).complete
        assert (await BulkRun(session, tmp_path / "b", store=make_store()).execute(["fox"])).skipped == 1
    assert emulator.ledger.accepted == 1


async def test_a_run_uses_the_store_of_its_session(
    emulator: Emulator, make_store: Callable[[], Store], tmp_path: Path
) -> None:
    async with KontextSession(
        emulator.api_key, base_url=emulator.base_url, settings=FAST, store=make_store()
    ) as session:
        assert (await BulkRun(session, tmp_path / "a", run="foxes").execute(FOXES)).complete
        assert (await BulkRun(session, tmp_path / "b", run="foxes").execute(FOXES)).skipped == 30
        assert not (tmp_path / "a" / "journal.sqlite").exists()
        assert (await session.generate("another fox", key="k")).usage.cost == Decimal("0.04")


async def test_one_session_does_not_execute_one_run_twice_at_the_same_time(
    emulator: Emulator, make_store: Callable[[], Store], tmp_path: Path
) -> None:
    async with KontextSession(
        emulator.api_key, base_url=emulator.base_url, settings=FAST, store=make_store()
    ) as session:
        async with asyncio.timeout(20):
            results = await asyncio.gather(
                *(BulkRun(session, tmp_path / name, run="foxes").execute(FOXES) for name in "ab"),
                return_exceptions=True,
            )
    assert sum(isinstance(each, RunRefused) for each in results) == 1
    assert emulator.ledger.accepted == 30


async def test_paid_requests_that_are_missing_from_the_input_are_recovered_by_one_worker(
    workers: Workers, emulator: Emulator
) -> None:
    other = await OtherWorker.start(workers)
    (row,) = await other.plan(["fox"])
    task_id = await create_task(emulator, "fox")
    await other.take(row, other.intended(), Accepted(attempt=1, task_id=task_id, at=time.time()))
    report = await workers.execute("a", ["wolf"], account="tests")
    assert report.orphans == 0, "its worker is alive"
    await other.die()
    report = await workers.execute("a", ["wolf"], account="tests")
    assert (report.orphans, report.skipped) == (1, 1)
    store = workers.make_store()
    await store.open()
    assert {each.state for each in await store.page(Selection())} == {State.SAVED}
    await store.aclose()


async def test_a_request_with_another_signature_in_the_url_of_its_image_is_the_same(
    workers: Workers, emulator: Emulator
) -> None:
    def sign(signature: str) -> dict[str, str]:
        parameters = {
            "Algorithm": "AWS4-HMAC-SHA256",
            "Credential": "c",
            "Date": signature,
            "Expires": "60",
            "SignedHeaders": "host",
            "Signature": signature,
        }
        query = "&".join(f"X-Amz-{name}={value}" for name, value in parameters.items())
        return {"prompt": "dusk", "input_images": f"https://bucket.example/in.png?{query}"}

    assert (await workers.execute("a", [sign("1"), sign("2")])).completed == 2
    assert (await workers.execute("a", [sign("3"), sign("4")])).skipped == 2
    assert emulator.ledger.accepted == 2


async def test_a_worker_takes_as_many_requests_as_it_has_slots_for(workers: Workers, emulator: Emulator) -> None:
    small = attrs.evolve(FAST, limits=Limits(max_in_flight=2, polls_per_second=2000))
    reports = await workers.execute_together("ab", FOXES, settings=small)
    assert all(report.completed > 0 for report in reports)
    assert emulator.ledger.accepted == 30
