"""A Redis server of our own, for the job queues that keep their jobs there: `start_redis`."""

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

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["RedisServer", "start_redis"]


@frozen
class RedisServer(Daemon):
    """A running Redis server, which keeps everything in memory.

    Attributes:
        program: The path of its program.
    """

    PID_FILE: ClassVar[str] = "redis.pid"
    STOP_SIGNAL: ClassVar[str] = "TERM"

    program: str

    @property
    def url(self) -> str:
        """The URL of its first database."""
        return f"redis://{HOST}:{self.port}/0"

    def prepare(self) -> None:
        """Write its configuration."""
        settings = {
            "bind": HOST,
            "port": self.port,
            "daemonize": "yes",
            "pidfile": self.directory / self.PID_FILE,
            "logfile": self.directory / "redis.log",
            "dir": self.directory,
            "save": '""',
        }
        lines = (f"{name} {value}\n" for name, value in settings.items())
        (self.directory / "redis.conf").write_text("".join(lines))

    def start(self) -> None:
        """Start it."""
        run_program((self.program, str(self.directory / "redis.conf")), self.directory)


@contextmanager
def start_redis() -> Iterator[RedisServer]:
    """Run a Redis server.

    Raises:
        ProgramMissing: The machine has no Redis.
    """
    server = RedisServer(
        program=find_program("redis-server", of="Redis"),
        directory=make_directory("redis"),
        port=choose_port(),
    )
    with run_daemon(server):
        yield server
