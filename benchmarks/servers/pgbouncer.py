"""A PgBouncer of our own in front of a PostgreSQL server, in transaction mode: `start_pgbouncer`."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from attrs import frozen

from benchmarks.servers.daemons import (
    HOST,
    Daemon,
    choose_port,
    find_program,
    make_directory,
    run_daemon,
    run_program,
)
from benchmarks.servers.postgres import ROLE, PostgresServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.servers.postgres import PostgresDatabase

__all__ = ["PgBouncer", "start_pgbouncer"]

CONFIGURATION = """
[databases]
* = host={host} port={server.port}

[pgbouncer]
listen_addr = {host}
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {directory}/users
pool_mode = transaction
default_pool_size = {connections}
max_client_conn = 1000
logfile = {directory}/pgbouncer.log
pidfile = {directory}/pgbouncer.pid
"""
"""No startup parameter is ignored: a client that sends one is refused, as by default."""


@frozen
class PgBouncer(Daemon):
    """A running PgBouncer.

    Attributes:
        program: The path of its program.
        server: The server behind it.
        connections: The connections that it keeps to each database.
    """

    PID_FILE: ClassVar[str] = "pgbouncer.pid"
    STOP_SIGNAL: ClassVar[str] = "KILL"
    """Its signals for a quick and a slow end changed places with version 1.23."""

    program: str
    server: PostgresServer
    connections: int

    def url(self, database: PostgresDatabase) -> str:
        """Return the URL of a database through this PgBouncer."""
        return database.url_at(self.port)

    def prepare(self) -> None:
        """Write its configuration and the password of the role."""
        (self.directory / "users").write_text(f'"{ROLE}" "{self.server.password}"\n')
        text = CONFIGURATION.format(
            host=HOST, server=self.server, port=self.port, directory=self.directory, connections=self.connections
        )
        (self.directory / "pgbouncer.ini").write_text(text)

    def start(self) -> None:
        """Start it."""
        run_program((self.program, "--quiet", "--daemon", str(self.directory / "pgbouncer.ini")), self.directory)


@contextmanager
def start_pgbouncer(server: PostgresServer, *, connections: int = 4) -> Iterator[PgBouncer]:
    """Run PgBouncer in transaction mode in front of a server, with few connections, which all clients share.

    Raises:
        ProgramMissing: The machine has no PgBouncer.
    """
    bouncer = PgBouncer(
        program=find_program("pgbouncer", of="PgBouncer"),
        directory=make_directory("pgbouncer"),
        port=choose_port(),
        server=server,
        connections=connections,
    )
    with run_daemon(bouncer):
        yield bouncer
