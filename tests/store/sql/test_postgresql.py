"""PostgreSQL: what the server, the network and the rights of a user do to a store."""

# ruff: noqa: S603 # our own program

from __future__ import annotations

import asyncio
import secrets
import socket
import subprocess
import sys
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
from store_support import LEASE, PRICE, new_row, new_step, open_run

from kontext_async import StoreError, StoreSettings, StoreUnavailable, StoreUnusable
from kontext_async.store.rows import RowStep
from kontext_async.store.sql.postgresql import PostgresDatabase
from kontext_async.store.sql.store import SqlStore
from kontext_async.store.steps import Accepted, Completed, Intended, Verdict, Withdrawn
from kontext_async.store.urls import store_from_url

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from benchmarks.servers.pgbouncer import PgBouncer
    from benchmarks.servers.postgres import PostgresDatabase as Database, PostgresServer
    from kontext_async.store.base import Store
    from kontext_async.store.rows import Row
    from kontext_async.store.steps import Step

pytestmark = pytest.mark.anyio

QUICK = StoreSettings(lease=2.0, beat=0.5, connect=0.5)
URGENT = StoreSettings(lease=2.0, beat=0.5, connect=5.0)


@asynccontextmanager
async def opened(url: str, settings: StoreSettings | None = None) -> AsyncIterator[Store]:
    store = store_from_url(url, settings or StoreSettings())
    await store.open()
    try:
        yield store
    finally:
        await store.aclose()


@pytest.fixture
async def store(anyio_backend: str, postgres_database: Database) -> AsyncIterator[Store]:
    async with opened(postgres_database.url, URGENT) as store:
        yield store


async def start(store: Store) -> tuple[int, Row]:
    """Register a worker, and plan a row."""
    run = await open_run(store, "foxes")
    worker = await store.add_worker(secrets.token_bytes(16), LEASE)
    [row] = await store.plan(run.id, [new_row()])
    return worker, row


async def take(store: Store, worker: int, row: Row, *steps: Any) -> list[Verdict]:
    return [each.verdict for each in await store.apply(worker, [RowStep(row=row.id, step=step) for step in steps])]


async def in_thread(call: Callable[..., Any], *arguments: Any) -> Any:
    return await asyncio.to_thread(call, *arguments)


async def wait_for_lock(database: Database) -> int:
    """Wait until a connection of the store waits for a lock; return its process."""
    query = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    async with asyncio.timeout(20):
        while not (found := await in_thread(database.execute, query)):
            await asyncio.sleep(0.01)
    return int(found[0][0])


@asynccontextmanager
async def locked_row(database: Database, row: Row) -> AsyncIterator[None]:
    """Lock a row as another worker would that was stopped inside a transaction."""
    import psycopg

    connection = await psycopg.AsyncConnection.connect(database.url)
    try:
        await connection.execute("SELECT id FROM kontext_requests WHERE id = %s FOR UPDATE", (row.id,))
        yield
    finally:
        await connection.close()


def text_of(error: BaseException | None) -> str:
    """Return all that an error shows, with its causes and contexts."""
    texts = []
    while error is not None:
        texts.append(f"{error} {error!r} {getattr(error, '__dict__', {})}")
        error = error.__cause__ or error.__context__
    return " ".join(texts)


async def refusal(url: str, kind: type[StoreError], settings: StoreSettings | None = None) -> str:
    """Open a store that cannot be opened; return the text of the error, which has no secret."""
    store = store_from_url(url, settings or StoreSettings())
    with pytest.raises(kind) as caught:
        await store.open()
    return str(caught.value)


async def test_connections_that_the_server_ended_are_replaced_without_a_failure(
    postgres_database: Database, store: Store
) -> None:
    worker, row = await start(store)
    for number in range(1, 4):
        assert await in_thread(postgres_database.terminate_connections) > 0
        await store.beat(worker, LEASE)
        assert (await store.fetch([row.id]))[row.id].attempt == number - 1
        await in_thread(postgres_database.terminate_connections)
        step = new_step(Intended, number, reserved=None)
        assert await take(store, worker, row, step) == [Verdict.APPLIED]
        await take(store, worker, row, new_step(Withdrawn, number))


async def test_a_server_that_crashed_loses_nothing_and_is_used_again(private_postgres_database: Database) -> None:
    server = private_postgres_database.server
    async with opened(private_postgres_database.url, QUICK) as store:
        worker, row = await start(store)
        assert await take(store, worker, row, new_step(Intended, 1)) == [Verdict.APPLIED]
        await in_thread(server.stop)
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            await store.beat(worker, LEASE)
        with pytest.raises(StoreUnavailable, match="cannot be reached"):
            await take(store, worker, row, new_step(Accepted, 1, task_id="task"))
        await in_thread(server.start)
        await store.beat(worker, LEASE)
        accepted = new_step(Accepted, 1, task_id="task")
        assert await take(store, worker, row, accepted, accepted) == [Verdict.APPLIED, Verdict.REPEATED]
        await in_thread(server.restart)
        assert (await store.fetch([row.id]))[row.id].task_id == "task"


async def test_a_transaction_whose_connection_is_ended_is_unavailable_and_can_be_repeated(
    postgres_database: Database, store: Store
) -> None:
    worker, row = await start(store)
    async with locked_row(postgres_database, row):
        waiting = asyncio.create_task(take(store, worker, row, new_step(Intended, 1)))
        process = await wait_for_lock(postgres_database)
        await in_thread(postgres_database.execute, "SELECT pg_terminate_backend(%s)", (process,))
        with pytest.raises(StoreUnavailable) as caught:
            await waiting
    assert "UPDATE" not in text_of(caught.value), "neither the error nor its context has the statement"
    assert await take(store, worker, row, new_step(Intended, 1)) == [Verdict.APPLIED]


async def test_a_worker_that_stopped_inside_a_transaction_stops_others_for_a_lease_at_most(
    postgres_database: Database, store: Store
) -> None:
    worker, row = await start(store)
    async with locked_row(postgres_database, row):
        began = time.monotonic()
        with pytest.raises(StoreUnavailable, match="cannot be used now"):
            await take(store, worker, row, new_step(Intended, 1))
        assert time.monotonic() - began == pytest.approx(URGENT.lease, abs=1.5)
        await store.beat(worker, LEASE)
    assert await take(store, worker, row, new_step(Intended, 1)) == [Verdict.APPLIED]


async def test_our_own_transactions_end_when_their_process_stops_inside_them(
    postgres_database: Database, store: Store
) -> None:
    assert isinstance(store, SqlStore)
    names = ("lock_timeout", "idle_in_transaction_session_timeout", "statement_timeout")
    shown = await store.database.run(lambda transaction: [transaction.fetch(f"SHOW {name}")[0][0] for name in names])
    assert shown == ["2s", "2s", "2s"]


async def test_a_caller_that_is_cancelled_leaves_no_broken_connection(
    postgres_database: Database, store: Store
) -> None:
    worker, row = await start(store)
    async with locked_row(postgres_database, row):
        waiting = [asyncio.create_task(take(store, worker, row, new_step(Intended, 1))) for _ in range(6)]
        await wait_for_lock(postgres_database)
        for task in waiting:
            task.cancel()
        assert {type(each) for each in await asyncio.gather(*waiting, return_exceptions=True)} == {
            asyncio.CancelledError
        }
    assert await take(store, worker, row, new_step(Intended, 1)) in ([Verdict.APPLIED], [Verdict.REPEATED])
    assert (await store.fetch([row.id]))[row.id].attempt == 1


def unlocked(database: Database, table: str) -> set[int]:
    """Return the numbers of the records that no transaction has locked."""
    return {number for (number,) in database.execute(f"SELECT id FROM {table} FOR UPDATE SKIP LOCKED")}  # noqa: S608 # ours


ACCEPTED = new_step(Accepted, 1, task_id="task")
COMPLETED = new_step(Completed, 1, task_id="task")


@pytest.mark.parametrize(
    ("before", "step", "intended"),
    [
        pytest.param((), ACCEPTED, new_step(Intended, 1), id="a task ID"),
        pytest.param((ACCEPTED,), COMPLETED, new_step(Intended, 1), id="a cost"),
        pytest.param((ACCEPTED,), COMPLETED, new_step(Intended, 1, limit=10 * PRICE), id="a cost limit"),
    ],
)
async def test_a_group_of_steps_locks_its_rows_in_order_and_its_runs_after_them(
    postgres_database: Database, before: tuple[Step, ...], step: Step, intended: Step
) -> None:
    async with opened(postgres_database.url) as store:
        worker, contested = await start(store)
        [own] = await store.plan(contested.run, [new_row("wolf")])
        await take(store, worker, own, new_step(Intended, 1), *before)
        async with locked_row(postgres_database, contested):
            group = [RowStep(row=own.id, step=step), RowStep(row=contested.id, step=intended)]
            applying = asyncio.create_task(store.apply(worker, group))
            await wait_for_lock(postgres_database)
            assert await in_thread(unlocked, postgres_database, "kontext_requests") == {own.id}
            assert await in_thread(unlocked, postgres_database, "kontext_runs") == {contested.run}
        assert [each.verdict for each in await applying] == [Verdict.APPLIED, Verdict.APPLIED]


async def test_an_execution_locks_the_rows_that_it_moves_in_order(postgres_database: Database) -> None:
    async with opened(postgres_database.url) as store:
        run = await open_run(store, "foxes", executes=True)
        new = [new_row("wolf", position=0), new_row("fox", position=1)]
        contested, other = await store.plan(run.id, new, execution=run.execution)
        later = await open_run(store, "foxes", executes=True)
        async with locked_row(postgres_database, contested):
            planning = asyncio.create_task(store.plan(run.id, new[::-1], execution=later.execution))
            await wait_for_lock(postgres_database)
            assert await in_thread(unlocked, postgres_database, "kontext_requests") == {other.id}
        assert [row.execution for row in await planning] == [later.execution] * 2


async def test_a_beat_does_not_wait_for_the_steps_of_a_busy_worker(postgres_database: Database, store: Store) -> None:
    worker, row = await start(store)
    async with locked_row(postgres_database, row):
        waiting = [asyncio.create_task(take(store, worker, row, new_step(Intended, 1))) for _ in range(6)]
        await wait_for_lock(postgres_database)
        await store.beat(worker, LEASE)
        assert not any(task.done() for task in waiting)
    verdicts = [verdict for [verdict] in await asyncio.gather(*waiting)]
    assert sorted(verdicts, key=lambda each: each.name) == [Verdict.APPLIED, *[Verdict.REPEATED] * 5]


async def test_a_server_that_stops_responding_is_unavailable_in_time_and_is_used_again(
    private_postgres_database: Database,
) -> None:
    async with opened(private_postgres_database.url, QUICK) as store:
        worker, row = await start(store)
        with private_postgres_database.server.paused():
            for call in (
                store.beat(worker, LEASE),
                take(store, worker, row, new_step(Intended, 1)),
                store_from_url(private_postgres_database.url, QUICK).open(),
            ):
                began = time.monotonic()
                with pytest.raises(StoreUnavailable, match=r"did not respond within|no connection within"):
                    await call
                assert time.monotonic() - began < 4 * QUICK.connect
        taken: list[Verdict] = []
        async with asyncio.timeout(20):  # the server first has to end the connections that were given up meanwhile
            while not taken:
                with suppress(StoreUnavailable):
                    taken = await take(store, worker, row, new_step(Intended, 1))
        assert taken in ([Verdict.APPLIED], [Verdict.REPEATED])


SILENT = """
import asyncio, sys, time
from kontext_async import StoreSettings, StoreUnavailable
from kontext_async.store.urls import store_from_url

async def main():
    try:
        await store_from_url(sys.argv[1], StoreSettings(connect=0.5)).open()
    except StoreUnavailable as error:
        print(error)

asyncio.run(main())
"""


async def test_a_host_that_never_responds_is_named_with_a_reason_and_the_process_ends() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://ada:s3cret@127.0.0.1:{silent.getsockname()[1]}/paid"
        began = time.monotonic()
        done = await in_thread(
            lambda: subprocess.run(
                [sys.executable, "-W", "error", "-c", SILENT, url],
                capture_output=True,
                text=True,
                timeout=30,
                check=False,
            )
        )
    assert done.stderr == ""
    assert "no connection within 0.5 s" in done.stdout
    assert "s3cret" not in done.stdout
    assert time.monotonic() - began < 15


async def test_a_port_where_nobody_listens_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    text = await refusal(f"postgresql://ada:s3cret@127.0.0.1:{port}/paid", StoreUnavailable)
    assert f"127.0.0.1:{port}" in text
    assert "refused" in text
    assert "s3cret" not in text


async def test_the_host_of_several_that_responds_is_used(postgres_database: Database, postgres: PostgresServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        dead = server.getsockname()[1]
    place = f"127.0.0.1:{postgres.port}"
    async with opened(postgres_database.url.replace(place, f"127.0.0.1:{dead},{place}")) as store:
        assert await store.run_names() == {}
        assert store.name == f"postgresql://127.0.0.1:{dead},{place}/{postgres_database.name}"


async def test_the_password_may_come_from_the_environment_a_file_or_a_service(
    postgres_database: Database, postgres: PostgresServer, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = f"postgresql://kontext@127.0.0.1:{postgres.port}/{postgres_database.name}"
    assert "check the user and the password" in await refusal(bare, StoreUnusable)
    monkeypatch.setenv("PGPASSWORD", postgres_database.password)
    async with opened(bare):
        pass
    monkeypatch.delenv("PGPASSWORD")
    secret = tmp_path / "pgpass"
    escaped = postgres_database.password.replace("\\", "\\\\").replace(":", "\\:")
    secret.write_text(f"*:*:*:kontext:{escaped}\n")
    secret.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(secret))
    async with opened(bare):
        pass
    services = tmp_path / "services"
    services.write_text(
        f"[paid]\nhost=127.0.0.1\nport={postgres.port}\ndbname={postgres_database.name}\nuser=kontext\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    async with opened("postgresql:///?service=paid") as store:
        assert store.name == "postgresql:///?service=paid"
    assert "service" in await refusal("postgresql:///?service=unknown", StoreUnusable)


async def test_sslmode_means_what_it_means_to_psql(postgres_database: Database) -> None:
    async with opened(f"{postgres_database.url}?sslmode=prefer&application_name=paid"):
        pass
    assert "sslmode" in await refusal(f"{postgres_database.url}?sslmode=require", StoreUnusable)


async def test_a_wrong_password_and_a_missing_database_are_named(postgres_database: Database) -> None:
    wrong = postgres_database.url.replace("kontext:", "kontext:s3cret")
    text = await refusal(wrong, StoreUnusable)
    assert "check the user and the password" in text
    assert "s3cret" not in text
    missing = postgres_database.url.replace(postgres_database.name, "nowhere")
    assert "create the database" in await refusal(missing, StoreUnusable)


@pytest.mark.parametrize("right", ["SELECT", "INSERT", "UPDATE", "DELETE"])
async def test_a_missing_right_is_named_before_anything_is_paid_for(
    postgres_database: Database, store: Store, right: str
) -> None:
    await in_thread(postgres_database.execute, "ALTER TABLE kontext_requests OWNER TO postgres")
    rights = ", ".join({"SELECT", "INSERT", "UPDATE", "DELETE"} - {right})
    await in_thread(postgres_database.execute, f"GRANT {rights} ON kontext_requests TO kontext")
    text = await refusal(postgres_database.url, StoreUnusable)
    assert f"no right to {right} in the table kontext_requests" in text
    assert "nothing was submitted" in text


async def test_a_missing_right_to_create_tables_is_named(postgres_database: Database) -> None:
    await in_thread(postgres_database.execute, "REVOKE ALL ON SCHEMA public FROM PUBLIC, kontext")
    await in_thread(postgres_database.execute, "ALTER SCHEMA public OWNER TO postgres")
    await in_thread(postgres_database.execute, "GRANT USAGE ON SCHEMA public TO kontext")
    assert "give this user the right" in await refusal(postgres_database.url, StoreUnusable)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE kontext_requests (id bigint, text text)",
        "CREATE TABLE kontext_runs (id bigint, text text)",
        "CREATE VIEW kontext_workers AS SELECT 1 AS id",
    ],
)
async def test_a_foreign_table_of_our_name_is_left_as_it_is(postgres_database: Database, statement: str) -> None:
    await in_thread(postgres_database.execute, statement)
    text = await refusal(postgres_database.url, StoreUnusable)
    assert "is not of kontext_async" in text
    assert "backup" not in text
    tables = await in_thread(
        postgres_database.execute,
        "SELECT relname FROM pg_class WHERE relname LIKE 'kontext%' AND relkind IN ('r', 'v')",
    )
    assert len(tables) == 1


async def test_a_store_of_a_newer_version_is_left_as_it_is(postgres_database: Database, store: Store) -> None:
    await in_thread(postgres_database.execute, "UPDATE kontext_meta SET value = '3' WHERE name = 'version'")
    assert "update kontext_async" in await refusal(postgres_database.url, StoreUnusable)


async def test_a_server_that_does_not_wait_for_its_disk_is_refused(postgres_database: Database) -> None:
    await in_thread(
        postgres_database.execute, f'ALTER DATABASE "{postgres_database.name}" SET synchronous_commit = off'
    )
    assert "synchronous_commit" in await refusal(postgres_database.url, StoreUnusable)


async def test_a_database_that_lacks_characters_is_refused(postgres: PostgresServer) -> None:
    name = f"kontext_{secrets.token_hex(6)}"
    await in_thread(
        postgres.execute, f"CREATE DATABASE \"{name}\" OWNER kontext ENCODING LATIN1 LOCALE 'C' TEMPLATE template0"
    )
    from benchmarks.servers.postgres import PostgresDatabase as Database

    database = Database(postgres, name)
    try:
        assert "ENCODING 'UTF8'" in await refusal(database.url, StoreUnusable)
    finally:
        await in_thread(postgres.execute, f'DROP DATABASE "{name}" WITH (FORCE)')


async def test_a_read_only_server_is_unavailable(postgres_database: Database, store: Store) -> None:
    worker, row = await start(store)
    await in_thread(
        postgres_database.execute, f'ALTER DATABASE "{postgres_database.name}" SET default_transaction_read_only = on'
    )
    await in_thread(postgres_database.terminate_connections)
    assert await take(store, worker, row, new_step(Intended, 1)) == [Verdict.APPLIED], "a default is not a standby"


async def test_stores_that_start_together_on_an_empty_database_are_one_store(postgres_database: Database) -> None:
    stores = [store_from_url(postgres_database.url, StoreSettings()) for _ in range(6)]
    await asyncio.gather(*(store.open() for store in stores))
    assert len({(store.identity, store.salt) for store in stores}) == 1
    executions = await asyncio.gather(*(store.open_run("foxes", executes=True) for store in stores))
    assert sorted(run.execution for run in executions if run) == [1, 2, 3, 4, 5, 6]
    await asyncio.gather(*(store.aclose() for store in stores))


async def test_workers_that_plan_the_same_keys_in_other_orders_do_not_wait_for_each_other(
    postgres_database: Database,
) -> None:
    async with opened(postgres_database.url) as one, opened(postgres_database.url) as other:
        run = await open_run(one, "foxes")
        keys = [f"fox-{number}" for number in range(200)]
        plans = await asyncio.gather(
            *(
                store.plan(run.id, [new_row(key) for key in order])
                for store, order in ((one, keys), (other, keys[::-1]), (one, keys[50:]), (other, keys[:150]))
            )
        )
        assert {row.key: row.id for row in plans[0]} == {row.key: row.id for row in plans[1]}
        assert [row.key for row in plans[1]] == keys[::-1]


async def test_a_store_works_behind_pgbouncer_in_transaction_mode(
    pgbouncer: PgBouncer, postgres_database: Database
) -> None:
    url = pgbouncer.url(postgres_database)
    async with opened(url) as one, opened(url) as other:
        run = await open_run(one, "foxes")
        workers = [await store.add_worker(secrets.token_bytes(16), LEASE) for store in (one, other)]
        rows = await one.plan(run.id, [new_row(str(number)) for number in range(20)])
        for step in (
            new_step(Intended, 1),
            new_step(Accepted, 1, task_id="task"),
            new_step(Completed, 1, task_id="task"),
        ):
            groups = [
                store.apply(worker, [RowStep(row=row.id, step=step) for row in rows[start::2]])
                for start, (store, worker) in enumerate(zip((one, other), workers, strict=True))
            ]
            verdicts = [each.verdict for results in await asyncio.gather(*groups) for each in results]
            assert verdicts == [Verdict.APPLIED] * 20
        assert (await other.summary(run.id)).spent == 20 * PRICE


async def test_no_error_of_a_transaction_shows_a_statement_a_parameter_or_the_password(
    postgres_database: Database, store: Store
) -> None:
    worker, row = await start(store)
    await in_thread(postgres_database.execute, "ALTER TABLE kontext_requests ADD CHECK (task_id <> 'secret-task')")
    await take(store, worker, row, new_step(Intended, 1))
    with pytest.raises(StoreUnusable) as caught:
        await take(store, worker, row, new_step(Accepted, 1, task_id="secret-task"))
    shown = text_of(caught.value)
    for secret in ("secret-task", "UPDATE", postgres_database.password):
        assert secret not in shown


async def test_a_connection_names_no_password_in_its_repr(postgres_database: Database, store: Store) -> None:
    assert isinstance(store, SqlStore)
    assert isinstance(store.database, PostgresDatabase)
    assert postgres_database.password not in f"{store!r} {store.database!r} {store.name} {store.database._address!r}"
