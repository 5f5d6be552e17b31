"""Database servers for tests, started from the machine's programs; a test is skipped where there is none.

- `postgres_database`: an empty database of the server that all tests of a run share, workers of pytest-xdist included;
  each worker has one, which is made empty after each test
- `postgres`: that server; a test that restarts or pauses a server takes `private_postgres`,
  and `private_postgres_database` on it
- `pgbouncer`: PgBouncer in transaction mode in front of `postgres`: `pgbouncer.url(postgres_database)`;
  `private_pgbouncer` is in front of `private_postgres`
- `redis_url`: an empty Redis database

The first process that needs the shared server starts it. The server's lifeline is a named pipe that the process of
the whole run holds open.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from attrs import frozen
from cattrs.preconf.orjson import make_converter

from benchmarks.servers.daemons import ProgramMissing
from benchmarks.servers.pgbouncer import PgBouncer, start_pgbouncer
from benchmarks.servers.postgres import PostgresDatabase, PostgresServer, create_postgres, start_postgres
from benchmarks.servers.redis_server import RedisServer, start_redis

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["SharedPostgres", "skipping"]

CONVERTER = make_converter()


@frozen
class SharedPostgres:
    """One server for several processes, which the first that needs it starts.

    Attributes:
        directory: What these processes share.
    """

    directory: Path

    @property
    def lifeline(self) -> Path:
        return self.directory / "lifeline"

    @property
    def description(self) -> Path:
        return self.directory / "server.json"

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Let processes start the server during the block, and stop it after the block."""
        os.mkfifo(self.lifeline)
        holder = os.open(self.lifeline, os.O_RDWR)
        try:
            yield
        finally:
            os.close(holder)
            if server := self.find():
                server.wait_until_stopped()
            shutil.rmtree(self.directory)

    def find(self) -> PostgresServer | None:
        """Return the server, if a process has started it."""
        if not self.description.exists():
            return None
        return CONVERTER.loads(self.description.read_bytes(), PostgresServer)

    def get(self) -> PostgresServer:
        """Return the server; start it if no process has."""
        with (self.directory / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if found := self.find():
                return found
            server = create_postgres()
            reading = os.open(self.lifeline, os.O_RDONLY | os.O_NONBLOCK)
            with os.fdopen(reading):
                os.set_blocking(reading, True)
                server.launch(reading)
            self.description.touch(mode=0o600)
            self.description.write_bytes(CONVERTER.dumps(server))
            return server


SHARED = pytest.StashKey[SharedPostgres]()
ENDS = pytest.StashKey[ExitStack]()


def pytest_configure(config: pytest.Config) -> None:
    """Make the place where the processes of a run find the shared server; a worker of xdist gets its path."""
    worker_input = getattr(config, "workerinput", None)
    if worker_input is not None:
        config.stash[SHARED] = SharedPostgres(Path(worker_input["shared_postgres"]))
        return
    config.stash[SHARED] = shared = SharedPostgres(Path(tempfile.mkdtemp(prefix="kontext-tests-")))
    config.stash[ENDS] = ends = ExitStack()
    ends.enter_context(shared.kept())


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Send the path to a worker of xdist."""
    node.workerinput["shared_postgres"] = str(node.config.stash[SHARED].directory)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop the shared server, at the end of the whole run."""
    if ends := config.stash.get(ENDS, None):
        ends.close()


@contextmanager
def skipping() -> Iterator[None]:
    """Skip the test where the machine does not have the program of a server."""
    try:
        yield
    except ProgramMissing as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def postgres(pytestconfig: pytest.Config) -> PostgresServer:
    """The PostgreSQL server that all tests share: it is never stopped, paused, or cut off from other tests."""
    with skipping():
        return pytestconfig.stash[SHARED].get()


@pytest.fixture(scope="session")
def reused_database(postgres: PostgresServer) -> Iterator[PostgresDatabase]:
    """The database that the tests of this process use one after another, by `postgres_database`."""
    with postgres.fresh_database() as database:
        yield database


@pytest.fixture
def postgres_database(reused_database: PostgresDatabase) -> Iterator[PostgresDatabase]:
    """An empty database that no other test uses meanwhile, on the server that all tests share."""
    yield reused_database
    reused_database.clear()


@pytest.fixture
def private_postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server of the test's own."""
    with skipping(), start_postgres() as server:
        yield server


@pytest.fixture
def private_postgres_database(private_postgres: PostgresServer) -> PostgresDatabase:
    """An empty database on the test's own server, whose methods restart and pause it: `.server`."""
    return private_postgres.create_database()


@pytest.fixture(scope="session")
def pgbouncer(postgres: PostgresServer) -> Iterator[PgBouncer]:
    """PgBouncer in transaction mode in front of the server that all tests share."""
    with skipping(), start_pgbouncer(postgres) as bouncer:
        yield bouncer


@pytest.fixture
def private_pgbouncer(private_postgres: PostgresServer) -> Iterator[PgBouncer]:
    """PgBouncer in transaction mode in front of the test's own server."""
    with skipping(), start_pgbouncer(private_postgres) as bouncer:
        yield bouncer


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """A Redis server, one for each worker of xdist."""
    with skipping(), start_redis() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    """The URL of an empty Redis database."""
    with closing(redis.Redis.from_url(redis_server.url)) as client:
        client.flushall()
    return redis_server.url
