"""The requests that wait for other workers of a shared run, in a temporary file: there may be very many."""

from __future__ import annotations

import pickle
import tempfile
from typing import IO, TYPE_CHECKING, TypeAlias

import anyio.to_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from random import Random

    from kontext_async.bulk.records import InputRequest

__all__ = ["Deferred", "DeferredRequests"]

BATCH = 256

Deferred: TypeAlias = "tuple[InputRequest, int]"
"""A request, and the number of its row."""


class DeferredRequests:
    """Holds requests and the numbers of their rows; all but the last ones are in a temporary file without a name."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._places: list[int] = []
        self._latest: list[Deferred] = []
        self._count = 0

    def __len__(self) -> int:
        return self._count

    async def add(self, entry: InputRequest, row: int) -> None:
        """Add a request.

        Raises:
            OSError: The temporary file cannot be written.
        """
        self._latest.append((entry, row))
        self._count += 1
        if len(self._latest) >= BATCH:
            batch, self._latest = self._latest, []
            await anyio.to_thread.run_sync(self._write, batch)

    async def batches(self, random: Random) -> AsyncIterator[list[Deferred]]:
        """Yield all requests in a random order of batches, so that workers do not race for the same rows."""
        if self._latest:
            yield self._latest
        random.shuffle(self._places)
        for place in self._places:
            yield await anyio.to_thread.run_sync(self._read, place)

    def close(self) -> None:
        """Delete the temporary file."""
        if self._file:
            self._file.close()

    def _write(self, batch: list[Deferred]) -> None:
        if self._file is None:
            self._file = tempfile.TemporaryFile(prefix="kontext_async.")  # noqa: SIM115 # `close` closes it
        place = self._file.seek(0, 2)
        pickle.dump(batch, self._file, pickle.HIGHEST_PROTOCOL)
        self._places.append(place)

    def _read(self, place: int) -> list[Deferred]:
        if self._file is None:
            return []
        self._file.seek(place)
        batch: list[Deferred] = pickle.load(self._file)  # noqa: S301 # this process wrote it, into a file without a name
        return batch
