"""Every store: its numbers, its rows and its pages, in memory, in an SQLite file, and in PostgreSQL."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING

import pytest
from attrs import evolve
from store_support import ACCOUNT, LEASE, PRICE, Stores, Worker, accept, complete, new_row, new_step, open_run

from kontext_async.store.rows import Account, Row, RowStep, Run, Selection
from kontext_async.store.states import advance
from kontext_async.store.steps import Accepted, Completed, Intended, Received, Saved, State, Verdict, Withdrawn
from kontext_async.testing import ManualClock, MemoryStore

if TYPE_CHECKING:
    from kontext_async.store.base import Store

pytestmark = pytest.mark.anyio


async def owners_seen(worker: Worker, *rows: Row) -> dict[str, int | None]:
    """Let an execution of a worker read rows, and return the owners that it sees by the keys."""
    read = await worker.store.plan(1, [new_row(row.key) for row in rows], worker=worker.number, execution=2)
    assert all(row.owner_alive for row in read if row.owner == worker.number)
    return {row.key: row.owner for row in read}


class TestNumbers:
    """Workers, accounts, runs and folders: each name has one number, in all stores over one database."""

    async def test_a_store_has_an_identity_and_a_salt_that_all_its_users_share(
        self, store: Store, another: Worker
    ) -> None:
        assert store.identity
        assert store.identity == another.store.identity
        assert len(store.salt) == 32
        assert store.salt == another.store.salt

    async def test_a_worker_that_registers_twice_is_one_worker(self, worker: Worker, another: Worker) -> None:
        number = await worker.store.add_worker(b"t" * 16, LEASE)
        assert await another.store.add_worker(b"t" * 16, LEASE) == number
        assert number not in (worker.number, another.number)

    async def test_an_account_has_one_number(self, store: Store, another: Worker) -> None:
        other = Account(gateway=ACCOUNT.gateway, base=ACCOUNT.base, name="another team")
        number = await store.account(other)
        assert await another.store.account(other) == number
        assert await another.store.accounts() == {1: ACCOUNT, number: other}

    async def test_a_run_is_opened_by_its_name(self, store: Store, another: Worker) -> None:
        run = await open_run(store, "night ☾")
        assert run == Run(id=run.id, name="night ☾")
        assert await another.store.open_run("night ☾") == run

    async def test_an_unknown_run_is_created_only_on_request(self, store: Store) -> None:
        assert await store.open_run("night", create=False) is None
        assert await store.open_run("night", create=False) is None

    async def test_executions_are_counted_across_stores(self, store: Store, another: Worker) -> None:
        assert (await open_run(store, "night", executes=True)).execution == 1
        assert (await open_run(another.store, "night", executes=True)).execution == 2
        assert (await open_run(store, "night")).execution == 2

    async def test_a_folder_has_one_number(self, store: Store, another: Worker) -> None:
        number = await store.folder(b"f" * 16, "/srv/a")
        assert await another.store.folder(b"f" * 16, "/srv/a") == number
        further = await another.store.folder(b"g" * 16, "/srv/a")
        assert await store.folders() == {number: "/srv/a", further: "/srv/a"}

    async def test_stores_that_open_an_empty_database_together_all_open_it(self, stores: Stores) -> None:
        opened = await asyncio.gather(*(stores.connect() for _ in range(4)))
        assert len({store.identity for store in opened}) == 1


class TestPlanning:
    async def test_a_new_row_is_planned_and_free(self, store: Store) -> None:
        new = new_row("job-42", fields={"seed": 7, "ratio": "1:1"}, images=2, position=3)
        [row] = await store.plan(1, [new])
        assert row == Row(
            id=row.id,
            run=1,
            key="job-42",
            state=State.PLANNED,
            digest=b"d" * 32,
            model="pro",
            images=2,
            prompt="a fox",
            fields={"seed": 7, "ratio": "1:1"},
            position=3,
        )

    @pytest.mark.parametrize("execution", [None, 1])
    async def test_a_new_row_is_what_is_read_later(self, worker: Worker, execution: int | None) -> None:
        prompts = ["a fox", "", "\0", "f\ud83dox", "\U0001f98a", "'; --"]
        new = [new_row(f"{prompt} key", prompt=prompt, fields={"metadata": {"a": prompt}}) for prompt in prompts]
        rows = await worker.store.plan(1, new, worker=worker.number, execution=execution)
        assert await worker.store.fetch([row.id for row in rows]) == {row.id: row for row in rows}

    async def test_a_new_row_may_begin_with_its_first_attempt(self, worker: Worker, another: Worker) -> None:
        first = Intended(attempt=1, account=1, at=7.25)
        [row] = await worker.store.plan(1, [new_row(intended=first)], worker=worker.number)
        [planned] = await worker.store.plan(1, [new_row("another")], worker=worker.number)
        assert evolve(row, id=planned.id, key="another") == advance(planned, first, worker.number)
        assert await worker.read(row) == row
        for other, number in ((first, worker.number), (evolve(first, at=7.5), another.number)):
            [known] = await worker.store.plan(1, [new_row(intended=other)], worker=number)
            assert known == row
        assert (await worker.take(row, Intended, 1, at=7.25)).verdict is Verdict.REPEATED
        assert (await another.take(row, Intended, 1)).verdict is Verdict.LOST
        await worker.must_take(row, (Withdrawn, 1), (Intended, 2))

    async def test_a_row_begins_for_one_of_two_workers(self, worker: Worker, another: Worker) -> None:
        new = new_row(intended=Intended(attempt=1, account=1, at=7.0))
        both = await asyncio.gather(*(each.store.plan(1, [new], worker=each.number) for each in (worker, another)))
        owners = {row.owner for [row] in both}
        assert len(owners) == 1
        begun = [new.has_begun(row, each.number) for [row], each in zip(both, (worker, another), strict=True)]
        assert sorted(begun) == [False, True]

    async def test_a_known_row_does_not_begin_again(self, worker: Worker, row: Row) -> None:
        new = new_row(row.key, intended=Intended(attempt=1, account=1, at=7.0))
        [known] = await worker.store.plan(1, [new], worker=worker.number)
        assert known.state is State.PLANNED
        assert not new.has_begun(known, worker.number)

    async def test_a_known_key_gives_its_row_as_it_is(self, worker: Worker, another: Worker, row: Row) -> None:
        done = await complete(worker, row)
        [known] = await another.store.plan(1, [new_row(digest=b"x" * 32, prompt="another")], worker=another.number)
        assert known == done

    async def test_rows_come_in_the_order_of_their_keys(self, store: Store) -> None:
        await store.plan(1, [new_row("b"), new_row("d")])
        rows = await store.plan(1, [new_row(key) for key in "dcba"])
        assert [row.key for row in rows] == list("dcba")

    async def test_a_key_is_unique_within_its_run_only(self, store: Store) -> None:
        run = await open_run(store, "another")
        [one], [other] = await store.plan(1, [new_row()]), await store.plan(run.id, [new_row()])
        assert one.id != other.id
        assert (await store.find(1, ["fox"]))["fox"] == one
        assert (await store.find(run.id, ["fox"]))["fox"] == other

    async def test_two_workers_that_plan_one_key_together_get_one_row(self, worker: Worker, another: Worker) -> None:
        keys = [f"key-{number}" for number in range(50)]
        mine, theirs = await asyncio.gather(
            worker.store.plan(1, [new_row(key) for key in keys]),
            another.store.plan(1, [new_row(key) for key in reversed(keys)]),
        )
        assert {row.key: row.id for row in mine} == {row.key: row.id for row in theirs}

    async def test_the_preferred_owner_is_recorded_and_keeps_nobody_away(self, worker: Worker, another: Worker) -> None:
        [row] = await worker.store.plan(1, [new_row()], worker=worker.number)
        assert (row.owner, row.owner_alive) == (worker.number, True)
        assert (await another.must_take(row, (Intended, 1))).owner == another.number

    async def test_an_execution_moves_the_rows_that_it_reads(self, store: Store) -> None:
        [row] = await store.plan(1, [new_row(position=4)], execution=1)
        assert (row.position, row.execution) == (4, 1)
        [row] = await store.plan(1, [new_row(position=9)], execution=3)
        assert (row.position, row.execution) == (9, 3)
        [row] = await store.plan(1, [new_row(position=1)], execution=2)
        assert (row.position, row.execution) == (9, 3), "the execution fell"
        [row] = await store.plan(1, [new_row(position=1)])
        assert (row.position, row.execution) == (9, 3), "no execution has read it"

    async def test_an_execution_leaves_a_saved_row_alone_unless_its_position_changes(self, worker: Worker) -> None:
        store = worker.store
        folder = await store.folder(b"f" * 16, "/srv")
        [row] = await store.plan(1, [new_row(position=4)], execution=1)
        await complete(worker, row)
        [row] = await store.plan(1, [new_row(position=4)], execution=2)
        assert (row.position, row.execution) == (4, 2), "an unsaved one could be missing from a later input"
        await worker.must_take(row, (Saved, 1), folder=folder)
        [row] = await store.plan(1, [new_row(position=4)], execution=3)
        assert (row.position, row.execution) == (4, 2)
        [row] = await store.plan(1, [new_row(position=7)], execution=3)
        assert (row.position, row.execution) == (7, 3)

    async def test_the_first_execution_that_reads_what_a_dead_worker_left_is_preferred(self, stores: Stores) -> None:
        dead, first, second = [await stores.start_worker() for _ in range(3)]
        keys = ("planned", "withdrawn", "accepted")
        planned, withdrawn, accepted = await dead.store.plan(1, [new_row(key) for key in keys], worker=dead.number)
        await dead.must_take(withdrawn, (Intended, 1), (Withdrawn, 1))
        await accept(dead, accepted)
        assert await owners_seen(first, planned) == {"planned": dead.number}, "it is alive"
        await dead.die()
        [row] = await first.store.plan(1, [new_row("planned")], worker=first.number)
        assert row.owner == dead.number, "no execution reads it"
        assert await owners_seen(first, planned, withdrawn, accepted) == {
            "planned": first.number,
            "withdrawn": first.number,
            "accepted": dead.number,
        }
        assert await owners_seen(second, planned, withdrawn) == {"planned": first.number, "withdrawn": first.number}

    async def test_workers_that_read_what_a_dead_one_left_divide_it(self, stores: Stores) -> None:
        dead, *living = [await stores.start_worker() for _ in range(4)]
        rows = await dead.store.plan(1, [new_row(f"key-{number}") for number in range(60)], worker=dead.number)
        await dead.die()
        seen = await asyncio.gather(*(owners_seen(each, *rows) for each in living))
        stored = {row.key: row.owner for row in (await living[0].store.fetch([row.id for row in rows])).values()}
        assert seen == [stored] * 3
        assert set(stored.values()) <= {each.number for each in living}

    async def test_a_thousand_rows_at_once(self, worker: Worker) -> None:
        rows = await worker.store.plan(1, [new_row(f"key-{number}") for number in range(1000)])
        assert len({row.id for row in rows}) == 1000
        for kind in (Intended, Accepted, Completed):
            details = {} if kind is Intended else {"task_id": "task"}
            steps = [
                RowStep(
                    row=row.id, step=new_step(kind, 1, **details | ({"task_id": f"task-{row.id}"} if details else {}))
                )
                for row in rows
            ]
            results = await worker.store.apply(worker.number, steps)
            assert Counter(result.verdict for result in results) == {Verdict.APPLIED: 1000}
        found = await worker.store.fetch([row.id for row in rows])
        assert {row.task_id for row in found.values()} == {f"task-{row.id}" for row in rows}
        assert (await worker.store.summary(1)).spent == 1000 * PRICE

    @pytest.mark.parametrize(
        "text",
        ["", "ein Fuchs, 狐, 🦊, e\u0301", "'; DROP TABLE kontext_requests; --", "%s {x} \\u0000 \\", "x" * 100_000],
        ids=["empty", "unicode", "quotes", "marks", "long"],
    )
    async def test_any_text_comes_out_as_it_went_in(self, store: Store, text: str) -> None:
        await store.plan(1, [new_row(text[:512] or "empty", prompt=text, fields={"note": text, text: [1, None, 0.5]})])
        row = (await store.find(1, [text[:512] or "empty"]))[text[:512] or "empty"]
        assert (row.prompt, row.fields) == (text, {"note": text, text: [1, None, 0.5]})

    async def test_text_that_a_database_cannot_store_does_not_stop_a_row(self, worker: Worker) -> None:
        [row] = await worker.store.plan(1, [new_row(prompt="a\0b\ud800c", fields={"note": "a\0b\ud800c"})])
        await worker.must_take(row, (Intended, 1))
        for kind, verdict in ((Accepted, Verdict.APPLIED), (Accepted, Verdict.REPEATED), (Completed, Verdict.APPLIED)):
            assert (await worker.take(row, kind, 1, task_id="task\0\ud800")).verdict is verdict
        found = await worker.read(row)
        assert found.state is State.COMPLETED
        assert found.prompt[0] + found.prompt[2] == "ab"


class TestReading:
    async def test_unknown_rows_are_left_out(self, store: Store, row: Row) -> None:
        assert await store.fetch([row.id, row.id + 1000]) == {row.id: row}
        assert await store.find(1, ["fox", "dog"]) == {"fox": row}
        assert await store.fetch([]) == {}
        assert await store.find(1, []) == {}

    async def test_a_page_is_in_the_order_of_the_rows(self, store: Store) -> None:
        rows = await store.plan(1, [new_row(key) for key in "fedcba"])
        page = await store.page(Selection(run=1), limit=4)
        assert page == rows[:4]
        assert await store.page(Selection(run=1), after=page[-1].id) == rows[4:]

    async def test_a_page_by_completion_is_in_the_order_of_completion(self, worker: Worker) -> None:
        rows = await worker.store.plan(1, [new_row(key) for key in "abcd"])
        folder = await worker.store.folder(b"f" * 16, "/srv")
        for row, completion in zip(rows[:3], (3, 1, 2), strict=True):
            await complete(worker, row)
            await worker.must_take(row, (Saved, 1), folder=folder, completion=completion)
        selection = Selection(run=1, folder=folder, by_completion=True)
        assert [row.key for row in await worker.store.page(selection)] == ["b", "c", "a"]
        assert [row.key for row in await worker.store.page(selection, after=1, limit=1)] == ["c"]

    async def test_a_page_selects_by_state_account_folder_and_execution(self, worker: Worker) -> None:
        store = worker.store
        planned, done, saved = await store.plan(1, [new_row(key) for key in "abc"], execution=1)
        await complete(worker, done)
        await complete(worker, saved)
        folder = await store.folder(b"f" * 16, "/srv")
        await worker.must_take(saved, (Saved, 1), folder=folder)
        await store.plan(1, [new_row("a")], execution=2)
        other_run = await open_run(store, "another")
        await store.plan(other_run.id, [new_row()])

        async def keys(**conditions: object) -> str:
            return "".join(row.key for row in await store.page(Selection(**conditions)))  # type: ignore[arg-type]

        assert await keys() == "abcfox"
        assert await keys(run=1) == "abc"
        assert await keys(states=frozenset({State.COMPLETED, State.SAVED})) == "bc"
        assert await keys(run=1, account=1) == "abc"
        assert await keys(run=1, account=7) == "a", "a row without an account belongs to nobody else"
        assert await keys(folder=folder) == "c"
        assert await keys(run=1, execution_below=2) == "bc"
        assert planned.id < done.id < saved.id

    async def test_a_page_selects_what_nobody_owns_or_has_received(self, worker: Worker, another: Worker) -> None:
        mine, theirs, received = await worker.store.plan(1, [new_row(key) for key in ("mine", "theirs", "received")])
        await complete(worker, mine)
        await accept(another, theirs)
        await complete(another, received)
        await another.must_take(received, (Received, 1))
        unreceived = Selection(unreceived=True, states=frozenset({State.ACCEPTED, State.COMPLETED}))
        assert [row.key for row in await worker.store.page(unreceived)] == ["mine", "theirs"]
        unowned = Selection(unreceived=True, unowned=True)
        assert await worker.store.page(unowned) == []
        await another.die()
        assert [row.key for row in await worker.store.page(unowned)] == ["theirs"]


async def test_a_lease_ends_by_the_clock_of_the_database() -> None:
    clock = ManualClock()
    store = MemoryStore(clock=clock.time)
    number = await store.add_worker(b"t" * 16, LEASE)
    await store.open_run("default")
    [row] = await store.plan(1, [new_row()], worker=number)
    clock.advance(LEASE - 1)
    assert (await store.fetch([row.id]))[row.id].owner_alive
    await store.beat(number, LEASE)
    clock.advance(LEASE - 1)
    assert (await store.fetch([row.id]))[row.id].owner_alive
    clock.advance(1)
    assert not (await store.share().fetch([row.id]))[row.id].owner_alive
