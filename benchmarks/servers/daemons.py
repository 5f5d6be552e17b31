"""Programs of the machine that run as daemons: found, started as an unprivileged user, paused, and always stopped.

Each daemon has a keeper: a shell that reads a pipe, the lifeline, to its end. Then it stops the daemon and removes the
daemon's directory. The lifeline ends with the process that holds its other end, however that process ends.
"""

from __future__ import annotations

import os
import pwd
import random
import shutil
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import psutil
from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

__all__ = [
    "HOST",
    "Daemon",
    "ProgramMissing",
    "choose_port",
    "find_program",
    "make_directory",
    "run_daemon",
    "run_program",
    "wait_for_status",
]

HOST = "127.0.0.1"
PORTS = range(20_000, 30_000)
"""Below the ports that Linux and macOS give to outgoing connections: a daemon that restarts finds its own port free."""
SYSTEM_FOLDERS = ("/usr/sbin", "/usr/local/sbin", "/opt/homebrew/bin")
SHORT_FOLDER = Path("/tmp")  # noqa: S108 # the path of a Unix socket has 103 bytes at most
START_SECONDS = 60.0
STOP_SECONDS = 20.0

KEEPER = """
exec 3<&0 </dev/null
(
    cat <&3
    read -r pid < "$1"
    if test -n "$pid"; then
        kill -CONT "$pid"
        kill -"$2" "$pid"
        for _ in $(seq 200); do
            test "$2" != KILL && test -e "$1" && kill -0 "$pid" || break
            sleep 0.05
        done
        kill -KILL "$pid"
    fi
    rm -rf "$0"
) >/dev/null 2>&1 &
"""
"""The arguments are the daemon's directory, its file with the process ID, and the signal that stops it."""


class ProgramMissing(Exception):
    """The machine does not have the program."""


@frozen
class Daemon(ABC):
    """A running daemon.

    Attributes:
        directory: Where its files are. It is removed when the daemon is stopped.
        port: The port on 127.0.0.1 where it listens.
    """

    PID_FILE: ClassVar[str]
    STOP_SIGNAL: ClassVar[str]

    directory: Path
    port: int

    @abstractmethod
    def prepare(self) -> None:
        """Write the files that the daemon needs before its first start."""

    @abstractmethod
    def start(self) -> None:
        """Start the daemon with a command that ends when the daemon runs."""

    @property
    def process(self) -> psutil.Process:
        """The daemon's first process."""
        return psutil.Process(int((self.directory / self.PID_FILE).read_text().split()[0]))

    def pause(self) -> None:
        """Stop all of the daemon's processes where they are: its connections stay open, and nothing responds."""
        suspend([self.process])  # first: then it starts no further processes
        suspend(self.process.children(recursive=True))

    def resume(self) -> None:
        """Let the processes run again that `pause` stopped."""
        for child in self.process.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                child.resume()
        self.process.resume()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Pause the daemon during the block."""
        self.pause()
        try:
            yield
        finally:
            self.resume()

    def cpu_seconds(self) -> float:
        """Return the seconds of CPU of all its processes since it started, those that ended included."""
        while True:
            children = self.process.children(recursive=True)
            own = self.process.cpu_times()
            total = own.user + own.system + own.children_user + own.children_system
            with suppress(psutil.NoSuchProcess):
                for child in children:
                    times = child.cpu_times()
                    total += times.user + times.system
                if children == self.process.children(recursive=True):  # else one ended, and was counted twice or not
                    return float(total)

    def launch(self, lifeline: int) -> None:
        """Start the daemon for the first time, after its keeper, which reads the file descriptor `lifeline`."""
        arguments = [str(self.directory), str(self.directory / self.PID_FILE), self.STOP_SIGNAL]
        subprocess.run(["/bin/sh", "-c", KEEPER, *arguments], stdin=lifeline, start_new_session=True, check=True)
        self.prepare()
        self.start()
        self.wait_until_started()

    def wait_until_stopped(self) -> None:
        """Wait until the keeper has stopped the daemon, after the end of its lifeline."""
        deadline = time.monotonic() + STOP_SECONDS
        while self.directory.exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"the daemon in {self.directory} was not stopped within {STOP_SECONDS} s")
            time.sleep(0.01)

    def wait_until_started(self) -> None:
        """Wait until the daemon accepts a connection and has written its process ID."""
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                socket.create_connection((HOST, self.port), timeout=1).close()
                _ = self.process
            except (OSError, IndexError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return


@contextmanager
def run_daemon(daemon: Daemon) -> Iterator[None]:
    """Start a daemon, and stop it after the block, or when this process ends."""
    reading, writing = os.pipe()
    try:
        with os.fdopen(reading):
            daemon.launch(reading)
        yield
    finally:
        os.close(writing)
        daemon.wait_until_stopped()


def find_program(name: str, *, of: str, folders: Sequence[str] = ()) -> str:
    """Return the path of a program, which may be in one of `folders`; `of` names the product in the error."""
    searched = [*folders, *os.get_exec_path(), *SYSTEM_FOLDERS]
    if found := shutil.which(name, path=os.pathsep.join(searched)):
        return found
    raise ProgramMissing(f"there is no {of} on this machine: no program {name} in {', '.join(searched)}")


def make_directory(name: str) -> Path:
    """Make a directory with a short path, which belongs to the user who runs daemons."""
    directory = Path(tempfile.mkdtemp(prefix=f"kontext-{name}-", dir=SHORT_FOLDER if SHORT_FOLDER.is_dir() else None))
    if user := daemon_user():
        os.chown(directory, user["user"], user["group"])
    return directory


def suspend(processes: Sequence[psutil.Process]) -> None:
    """Stop processes where they are, and wait until they are stopped."""
    deadline = time.monotonic() + STOP_SECONDS
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.suspend()
    for process in processes:
        wait_for_status(process, {psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE}, deadline)


def wait_for_status(process: psutil.Process, statuses: Collection[str], deadline: float) -> None:
    """Wait until a process has one of some statuses, or is gone; `deadline` is a time of `time.monotonic`."""
    with suppress(psutil.NoSuchProcess):
        while process.status() not in statuses:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{process} did not become {' or '.join(sorted(statuses))} in time")
            time.sleep(0.001)


def choose_port() -> int:
    """Return a port of the loopback interface that nobody uses."""
    for port in random.sample(PORTS, 100):
        with closing(socket.socket()) as probe, suppress(OSError):
            probe.bind((HOST, port))
            return port
    raise OSError(f"no port is free among a hundred of {PORTS}")


def daemon_user() -> dict[str, Any]:
    """Return the arguments of `subprocess` for the user who runs daemons: root is refused by some of them."""
    if os.geteuid() != 0:
        return {}
    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            found = pwd.getpwnam(name)
            return {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}
    raise LookupError("root cannot run a database, and this machine has neither the user postgres nor nobody")


def run_program(command: Sequence[str], directory: Path) -> None:
    """Run a program as the user who runs daemons, and raise what it wrote if it fails."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
    done = subprocess.run(
        command,
        cwd=directory,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=START_SECONDS,
        check=False,
        **daemon_user(),
    )
    if done.returncode != 0:
        logs = "".join(log.read_text(errors="replace")[-2000:] for log in directory.glob("*.log"))
        raise RuntimeError(f"{Path(command[0]).name} ended with {done.returncode}: {done.stdout[-2000:]}{logs}")
