"""Our own database servers: what tests and measurements do with them, and that they end."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import psycopg
import pytest
import redis
from attrs import evolve
from servers_support import SharedPostgres, skipping
from sqlalchemy import make_url, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import create_async_engine

from benchmarks.servers.daemons import ProgramMissing, find_program, run_daemon, wait_for_status
from benchmarks.servers.postgres import create_postgres
from benchmarks.servers.redis_server import start_redis
from benchmarks.support.server_process import ROOT

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncEngine

    from benchmarks.servers.pgbouncer import PgBouncer
    from benchmarks.servers.postgres import PostgresDatabase, PostgresServer


def create_engine(url: str) -> AsyncEngine:
    driver = make_url(url).set(drivername="postgresql+psycopg")
    return create_async_engine(driver, connect_args={"prepare_threshold": None})


def psycopg_connect(url: str) -> psycopg.Connection:
    return psycopg.connect(url, autocommit=True, connect_timeout=5)


def test_fresh_databases_are_empty_and_apart_and_are_dropped(postgres: PostgresServer) -> None:
    with postgres.fresh_database() as one, postgres.fresh_database() as other:
        with psycopg_connect(one.url) as connection:
            connection.execute("CREATE TABLE only_here ()")
        assert one.execute("SELECT count(*) FROM only_here") == [(0,)]
        assert other.execute("SELECT to_regclass('only_here')") == [(None,)]
    assert postgres.execute("SELECT count(*) FROM pg_database WHERE datname = ANY(%s)", ([one.name, other.name],)) == [
        (0,)
    ]


def test_a_database_is_made_empty_again(postgres: PostgresServer) -> None:
    with postgres.fresh_database() as database:
        database.execute(f'ALTER DATABASE "{database.name}" SET default_transaction_read_only = on')
        writer = psycopg_connect(database.url)
        writer.execute("SET default_transaction_read_only = off")
        writer.execute("CREATE TABLE paid ()")
        writer.execute("BEGIN; LOCK TABLE paid")
        database.clear()
        with pytest.raises(psycopg.OperationalError):
            writer.execute("COMMIT")
        writer.close()
        assert database.execute("SELECT to_regclass('paid')") == [(None,)]
        with psycopg_connect(database.url) as another:
            another.execute("CREATE TABLE paid ()")


def test_the_password_is_tested(postgres_database: PostgresDatabase) -> None:
    wrong = make_url(postgres_database.url).set(password="guessed").render_as_string(hide_password=False)
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg_connect(wrong)


async def test_an_engine_reconnects_after_a_crash_of_the_server(
    anyio_backend: str, private_postgres_database: PostgresDatabase
) -> None:
    engine = create_engine(private_postgres_database.url)
    try:
        async with engine.begin() as connection:
            await connection.execute(text("CREATE TABLE paid AS SELECT 1 AS task"))
        private_postgres_database.server.restart(immediate=True)
        with pytest.raises(OperationalError):
            async with engine.begin() as connection:
                await connection.execute(text("SELECT task FROM paid"))
        async with engine.begin() as connection:
            assert (await connection.execute(text("SELECT task FROM paid"))).scalar_one() == 1
        assert "was not properly shut down" in private_postgres_database.server.log
    finally:
        await engine.dispose()


async def test_transactions_share_connections_behind_pgbouncer(
    anyio_backend: str, postgres_database: PostgresDatabase, pgbouncer: PgBouncer
) -> None:
    engine = create_engine(pgbouncer.url(postgres_database))
    try:
        async with engine.connect() as one, engine.connect() as other:
            backends = []
            for connection in (one, other) * 10:
                backends.append((await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one())
                await connection.commit()
        assert len(set(backends)) == 1
    finally:
        await engine.dispose()


def test_all_connections_to_one_database_are_ended(postgres: PostgresServer) -> None:
    with postgres.fresh_database() as one, postgres.fresh_database() as other:
        ended, kept = psycopg_connect(one.url), psycopg_connect(other.url)
        assert one.terminate_connections() == 1
        with pytest.raises(psycopg.OperationalError):
            ended.execute("SELECT 1")
        kept.execute("SELECT 1").close()
        kept.close()
        ended.close()


def test_a_paused_server_responds_when_it_is_resumed(private_postgres_database: PostgresDatabase) -> None:
    server = private_postgres_database.server
    with psycopg_connect(private_postgres_database.url) as connection:
        with server.paused():
            connection.pgconn.send_query(b"SELECT 1")
            states = {process.status() for process in (server.process, *server.process.children())}
        assert states - {"zombie"} == {"stopped"}  # a process that ended just before is removed by the stopped server
        result = connection.pgconn.get_result()
        assert result is not None
        assert result.get_value(0, 0) == b"1"
        while connection.pgconn.get_result():
            pass


def test_a_server_has_used_cpu(postgres: PostgresServer) -> None:
    before = postgres.cpu_seconds()
    postgres.execute("SELECT count(*) FROM generate_series(1, 500000)")
    assert postgres.cpu_seconds() > before


def test_each_redis_database_is_empty(redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0


def wait_until_ended(process: psutil.Process) -> None:
    """Wait for the end of a process that was killed. It may remain a zombie: its parent is another process."""
    wait_for_status(process, {psutil.STATUS_ZOMBIE}, time.monotonic() + 10)


def test_a_server_that_is_stopped_while_it_is_paused_leaves_nothing() -> None:
    with skipping(), start_redis() as server:
        process = server.process
        server.pause()
    assert not server.directory.exists()
    wait_until_ended(process)


START_AND_DIE = """
import os, signal
from benchmarks.servers.postgres import start_postgres
from benchmarks.servers.redis_server import start_redis
with start_postgres() as server:
    print(server.directory, server.process.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_server_ends_with_a_process_that_is_killed(postgres: PostgresServer) -> None:
    command = [sys.executable, "-c", START_AND_DIE]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603 # Python's own
    directory, pid = done.stdout.split()
    evolve(postgres, directory=Path(directory)).wait_until_stopped()
    with suppress(psutil.NoSuchProcess):
        wait_until_ended(psutil.Process(int(pid)))


def test_several_processes_share_one_server(postgres: PostgresServer, tmp_path: Path) -> None:
    shared = SharedPostgres(tmp_path)
    with shared.kept():
        with ThreadPoolExecutor() as pool:
            one, *others = pool.map(lambda _: shared.get(), range(4))
        assert others == [one] * 3
        assert one != postgres
        assert one.execute("SELECT 1") == [(1,)]
    assert not one.directory.exists()
    assert not tmp_path.exists()


def test_an_error_says_what_the_machine_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(
        ProgramMissing, match=r"there is no PgBouncer on this machine: no program pg-bouncer in /nowhere"
    ):
        find_program("pg-bouncer", of="PgBouncer")


def test_a_server_that_does_not_start_says_why_and_leaves_nothing() -> None:
    with skipping():
        server = create_postgres(settings={"no_such_setting": "1"})
    with pytest.raises(RuntimeError, match="no_such_setting"), run_daemon(server):
        pass
    assert not server.directory.exists()
