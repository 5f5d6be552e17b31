"""A PostgreSQL server of our own, from the machine's programs: `start_postgres`."""

from __future__ import annotations

import secrets
import subprocess
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote

import psycopg
from attrs import field, frozen

from benchmarks.servers.daemons import (
    HOST,
    Daemon,
    choose_port,
    find_program,
    make_directory,
    run_daemon,
    run_program,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = ["PostgresDatabase", "PostgresServer", "create_postgres", "start_postgres"]

VERSIONS = "/usr/lib/postgresql"
"""Where Debian has one folder for each version."""
SUPERUSER = "postgres"
ROLE = "kontext"
"""The owner of the databases, who may do nothing else."""
PASSWORD_MARKS = "p@ss:w/rd?%41#"  # noqa: S105 # what follows it is chance
"""What a URL has to escape, in every password of the role."""
SETTINGS = {
    "listen_addresses": HOST,
    "max_connections": "300",
    "shared_buffers": "64MB",
    "log_line_prefix": "%m [%p] %d ",
    "log_connections": "on",
}


@frozen
class PostgresServer(Daemon):
    """A running server.

    Its methods block: a test on an event loop calls those that take long in a thread.

    Attributes:
        programs: The folder of its programs.
        superuser_password: The password of `postgres`, its superuser.
        password: The password of `kontext`, the role that owns the databases. It has to be escaped in a URL.
        settings: The settings of postgresql.conf that are not `SETTINGS`.
    """

    PID_FILE: ClassVar[str] = "data/postmaster.pid"
    STOP_SIGNAL: ClassVar[str] = "QUIT"

    programs: str
    superuser_password: str = field(repr=False, factory=secrets.token_urlsafe)
    password: str = field(repr=False, factory=lambda: PASSWORD_MARKS + secrets.token_urlsafe(6))
    settings: dict[str, str] = field(factory=dict)

    @property
    def log(self) -> str:
        """What the server has logged."""
        return (self.directory / "postgres.log").read_text(errors="replace")

    def create_database(self) -> PostgresDatabase:
        """Create an empty database."""
        database = PostgresDatabase(self, f"kontext_{secrets.token_hex(6)}")
        self.execute(f'CREATE DATABASE "{database.name}" OWNER {ROLE}')
        return database

    @contextmanager
    def fresh_database(self) -> Iterator[PostgresDatabase]:
        """Create an empty database, and drop it after the block with all its connections."""
        database = self.create_database()
        try:
            yield database
        finally:
            self.execute(f'DROP DATABASE "{database.name}" WITH (FORCE)')

    def execute(self, statement: str, parameters: Sequence[Any] = (), *, database: str = "postgres") -> list[Any]:
        """Run one statement as the superuser, and return the rows."""
        with psycopg.connect(
            host=HOST,
            port=self.port,
            dbname=database,
            user=SUPERUSER,
            password=self.superuser_password,
            autocommit=True,
            connect_timeout=10,
        ) as connection:
            cursor = connection.execute(statement.encode(), parameters or None)
            return cursor.fetchall() if cursor.description else []

    def terminate_connections(self, database: str | None = None) -> int:
        """End all connections of clients, or those to one database, and return how many there were."""
        ended = self.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend'"
            " AND pid <> pg_backend_pid() AND (%s::text IS NULL OR datname = %s)",
            (database, database),
        )
        return len(ended)

    def restart(self, *, immediate: bool = True) -> None:
        """Stop the server, at once as in a crash or after the transactions that are open, and start it again."""
        self.stop(immediate=immediate)
        self.start()

    def stop(self, *, immediate: bool = True) -> None:
        """Stop the server; its files stay."""
        self._control("-m", "immediate" if immediate else "fast", "stop")

    def start(self) -> None:
        """Start the server: for the first time, or after `stop`."""
        self._control("-l", str(self.directory / "postgres.log"), "start")

    def prepare(self) -> None:
        """Make an empty cluster."""
        password_file = self.directory / "superuser"
        password_file.write_text(self.superuser_password)
        cluster = self.directory / "data"
        options = ("--no-sync", "--no-locale", "--encoding=UTF8", "--auth=scram-sha-256", f"--username={SUPERUSER}")
        program = f"{self.programs}/initdb"
        run_program((program, *options, f"--pwfile={password_file}", f"--pgdata={cluster}"), self.directory)
        own = {"port": str(self.port), "unix_socket_directories": str(self.directory)}
        with (cluster / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = '{value}'\n" for name, value in (SETTINGS | own | self.settings).items())

    def launch(self, lifeline: int) -> None:
        """Start the server for the first time, and create the role."""
        super().launch(lifeline)
        self.execute(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{self.password}'")

    def _control(self, *arguments: str) -> None:
        command = (f"{self.programs}/pg_ctl", "-s", "-w", "-D", str(self.directory / "data"), *arguments)
        run_program(command, self.directory)


@frozen
class PostgresDatabase:
    """A database of its own for a test or a measurement.

    Attributes:
        server: Its server.
        name: Its name.
    """

    server: PostgresServer
    name: str

    @property
    def url(self) -> str:
        """Its URL, as psql takes it, with role and password."""
        return self.url_at(self.server.port)

    @property
    def password(self) -> str:
        """The password in `url`, not escaped."""
        return self.server.password

    def url_at(self, port: int) -> str:
        """Return its URL at another port of the loopback interface, such as a proxy's."""
        return f"postgresql://{ROLE}:{quote(self.password, safe='')}@{HOST}:{port}/{self.name}"

    def execute(self, statement: str, parameters: Sequence[Any] = ()) -> list[Any]:
        """Run one statement in this database as the superuser, and return the rows."""
        return self.server.execute(statement, parameters, database=self.name)

    def terminate_connections(self) -> int:
        """End all connections to this database, and return how many there were."""
        return self.server.terminate_connections(self.name)

    def clear(self) -> None:
        """End all connections to it, and make it empty again, with the settings of a new one.

        That takes less than half of the time of creating and dropping one.
        """
        self.server.execute(f'ALTER DATABASE "{self.name}" RESET ALL')
        self.terminate_connections()
        self.execute(
            """
            DROP SCHEMA public CASCADE;
            CREATE SCHEMA public AUTHORIZATION pg_database_owner;
            GRANT USAGE ON SCHEMA public TO PUBLIC
            """
        )


@contextmanager
def start_postgres(*, fsync: bool = True, settings: Mapping[str, str] | None = None) -> Iterator[PostgresServer]:
    """Run a server in a directory of its own, with one role and no database of ours.

    Args:
        fsync: False for a server that may lose its data when the machine stops, but not when the server does.
        settings: Further settings of postgresql.conf.

    Raises:
        ProgramMissing: The machine has no PostgreSQL.
    """
    server = create_postgres(fsync=fsync, settings=settings)
    with run_daemon(server):
        yield server


def create_postgres(*, fsync: bool = True, settings: Mapping[str, str] | None = None) -> PostgresServer:
    """Return a server that does not run yet, for `PostgresServer.launch`."""
    return PostgresServer(
        programs=find_programs(),
        directory=make_directory("postgres"),
        port=choose_port(),
        settings={"fsync": "on" if fsync else "off", **(settings or {})},
    )


def find_programs() -> str:
    """Return the folder with the programs of the newest PostgreSQL on this machine."""
    versions = sorted(Path(VERSIONS).glob("*/bin"), key=lambda folder: float(folder.parent.name), reverse=True)
    folders = [str(folder) for folder in versions]
    with suppress(OSError, subprocess.CalledProcessError):
        configured = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=True)  # noqa: S607
        folders.append(configured.stdout.strip())
    return str(Path(find_program("pg_ctl", of="PostgreSQL", folders=folders)).parent)
