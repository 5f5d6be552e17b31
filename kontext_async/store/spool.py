"""The IDs of paid tasks that the store could not take yet: one local file for each worker.

``<folder>/<identity of the store>/<UUID of the worker>.jsonl`` is locked by its worker for as long as that lives. A
worker that starts adopts the files of dead ones: it copies their IDs into its own file, and deletes them. A line is one
ID; the same line with ``"written": true`` says that the store has it now. The files contain no secret. The methods of
`SpoolFile` block on disk access.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import logging
import os
import re
import stat
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

from attrs import asdict, frozen

from kontext_async.errors import StoreUnusable
from kontext_async.store.availability import log
from kontext_async.store.disk_reserve import DiskReserve, write_durably

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

__all__ = ["Spool", "SpoolFile", "SpooledId", "parse_spool"]

T = TypeVar("T")

RESERVE = 256 * 1024
"""Bytes, enough for the IDs of a thousand tasks in flight."""

FLAGS = os.O_RDWR | os.O_APPEND | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
SAFE_NAME = re.compile(r"[0-9A-Za-z_-]{1,64}")

if sys.platform == "win32":  # pragma: no cover # the suite runs where fcntl is
    import msvcrt

    def _lock(descriptor: int) -> None:
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(descriptor: int) -> None:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@frozen(kw_only=True)
class SpooledId:
    """The ID of a paid task, as `store.steps.Accepted` of a row.

    Attributes:
        row: The number of the row.
        attempt: The number of the attempt.
        task_id: The task ID.
        reference: The text that leads to the task again, where the ID alone does not.
        at: Unix seconds.
    """

    row: int
    attempt: int
    task_id: str
    reference: str | None = None
    at: float


def parse_spool(data: bytes) -> list[SpooledId]:
    """Return the IDs in a spool that are not written yet. Lines that are cut or foreign are skipped."""
    found: dict[SpooledId, None] = {}
    for line in data.splitlines():
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        match value:
            case {"row": int(row), "attempt": int(attempt), "task_id": str(task_id), "at": float(at)}:
                reference = value.get("reference")
                known = reference if isinstance(reference, str) else None
                item = SpooledId(row=row, attempt=attempt, task_id=task_id, reference=known, at=at)
                if value.get("written"):
                    found.pop(item, None)
                else:
                    found[item] = None
    return list(found)


class SpoolFile:
    """The spool of one worker, which is its only writer.

    Args:
        folder: The folder of the spools of one store.
        name: The name of the file, without its ending.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._path = folder / f"{name}.jsonl"
        self._descriptor: int | None = None
        self._size = 0
        self._items: dict[SpooledId, None] = {}
        self._reserve = DiskReserve(folder, RESERVE)

    def open(self) -> None:
        """Create and lock the file, and reserve disk space for it.

        Raises:
            OSError: The file cannot be created or locked.
            StoreUnusable: There is no space for the reserve.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = self._path.with_suffix(".new")
        descriptor = os.open(new, FLAGS | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            _lock(descriptor)
            new.rename(self._path)  # nobody adopts a file that is not locked yet
        except OSError:
            os.close(descriptor)
            new.unlink(missing_ok=True)
            raise
        self._descriptor = descriptor
        self._reserve.allocate()

    def add(self, items: Iterable[SpooledId]) -> None:
        """Write IDs durably. If the disk is full, they use the reserve.

        Raises:
            OSError: They cannot be written.
        """
        new = [item for item in items if item not in self._items]
        data = b"".join(_line(item) for item in new)
        try:
            self._append(data)
        except OSError:
            if not self._reserve.release():
                raise
            self._append(data)
        self._items.update(dict.fromkeys(new))

    def remove(self, items: Iterable[SpooledId]) -> None:
        """Remove IDs that the store has now.

        Raises:
            OSError: The file cannot be written.
        """
        written = [item for item in items if item in self._items]
        for item in written:
            del self._items[item]
        if self._descriptor is None:
            return
        if self._items:
            self._append(b"".join(_line(item, written=True) for item in written))
            return
        os.ftruncate(self._descriptor, 0)
        os.fsync(self._descriptor)
        self._size = 0
        with contextlib.suppress(StoreUnusable):
            self._reserve.allocate()

    def adopt(self) -> list[SpooledId]:
        """Return the IDs in the files of dead workers, and move them into this file if that is possible."""
        found = []
        for path in sorted(self._folder.glob("*.jsonl")):
            if path != self._path:
                with contextlib.suppress(OSError):  # it is locked by a live worker, or belongs to another user
                    found += self._adopt_file(path)
        return list(dict.fromkeys(found))

    def close(self) -> None:
        """Unlock the file, and delete it if it has no IDs. It does not raise."""
        descriptor, self._descriptor = self._descriptor, None
        self._reserve.release()
        if descriptor is not None:
            with contextlib.suppress(OSError):
                if not self._items:
                    self._path.unlink(missing_ok=True)
                os.close(descriptor)

    def _adopt_file(self, path: Path) -> list[SpooledId]:
        descriptor = os.open(path, FLAGS)
        try:
            _lock(descriptor)
            if not _is_own_file(descriptor):
                return []
            with open(descriptor, "rb", closefd=False) as file:
                found = parse_spool(file.read())
            with contextlib.suppress(OSError):  # the file stays, for the next worker
                self.add(found)
                path.unlink()
            return found
        finally:
            os.close(descriptor)

    def _append(self, data: bytes) -> None:
        if self._descriptor is None:
            raise OSError("the spool is not open")
        try:
            write_durably(self._descriptor, data)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(data)


def _line(item: SpooledId, *, written: bool = False) -> bytes:
    value = asdict(item) | ({"written": True} if written else {})
    return json.dumps(value, separators=(",", ":")).encode() + b"\n"


def _is_own_file(descriptor: int) -> bool:
    """Return True if an open file is a regular one of this user that nobody has deleted meanwhile."""
    status = os.fstat(descriptor)
    is_own = not hasattr(os, "geteuid") or status.st_uid == os.geteuid()
    return stat.S_ISREG(status.st_mode) and status.st_nlink > 0 and is_own


class Spool:
    """The spool of one worker, for the event loop. Its calls are executed in order.

    Args:
        folder: The folder of all spools.
        identity: The identity of the store.
        token: The UUID of the worker, as text.
    """

    def __init__(self, folder: Path, identity: str, token: str) -> None:
        if not SAFE_NAME.fullmatch(identity):  # it comes from a database
            identity = hashlib.sha256(identity.encode("utf-8", "replace")).hexdigest()
        self._folder = folder / identity
        self._file = SpoolFile(self._folder, token)
        self._thread = ThreadPoolExecutor(1, "kontext_async spool")  # its own: in order, and not behind downloads
        self._was_reported = False

    async def open(self) -> list[SpooledId]:
        """Create the file, and return the IDs of dead workers. What cannot be written is logged."""
        try:
            await self._run(self._file.open)
        except (OSError, StoreUnusable) as error:
            self._report(error)
        return await self._run(self._file.adopt)

    async def add(self, items: Sequence[SpooledId]) -> bool:
        """Write IDs durably; return False if that is not possible, which is logged once."""
        try:
            await self._run(self._file.add, items)
        except OSError as error:
            self._report(error)
            return False
        return True

    async def remove(self, items: Sequence[SpooledId]) -> None:
        """Remove IDs that the store has now."""
        try:
            await self._run(self._file.remove, items)
        except OSError as error:
            self._report(error)

    async def aclose(self) -> None:
        """Unlock the file, and delete it if it has no IDs."""
        await self._run(self._file.close)
        self._thread.shutdown(wait=False)

    async def _run(self, work: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _report(self, error: OSError | StoreUnusable) -> None:
        if not self._was_reported:
            self._was_reported = True
            reason = error.strerror if isinstance(error, OSError) else None
            log(
                logging.WARNING,
                f"the spool in {self._folder} cannot be written ({reason or error}): IDs of paid tasks are lost if "
                "this process ends while the store cannot be reached",
            )
