"""Rows of a durable run in tests, in a store and without a gateway."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from attrs import frozen
from store_support import ACCOUNT, new_step

from kontext_async.bulk.input import InputReader
from kontext_async.bulk.records import InputRequest, new_row
from kontext_async.images import MAX_IMAGE_BYTES
from kontext_async.store.rows import RowStep
from kontext_async.store.steps import Accepted, Completed, Failed, Intended, Saved, Step, Uncertain, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterable

    from kontext_async.store.base import Store
    from kontext_async.store.rows import Row

JPEG = b"\xff\xd8\xff\xe0" + b"image" * 20
"""The contents of an image file, as far as its start shows."""

REJECTION = {"type": "RequestRejected", "message": "the prompt is not allowed"}


@frozen
class RowWriter:
    """A worker that writes the rows of a run."""

    store: Store
    run: int
    worker: int
    account: int

    @classmethod
    async def start(cls, store: Store, name: str, *, lease: float = 60.0) -> RowWriter:
        """Register a worker, its account and the run."""
        run = await store.open_run(name, executes=True)
        assert run
        return cls(store, run.id, await store.add_worker(bytes(16), lease), await store.account(ACCOUNT))

    async def plan(self, *prompts: str) -> list[Row]:
        """Return the rows of prompts, as a run plans them."""
        reader = InputReader(prompts, MAX_IMAGE_BYTES)
        entries = [entry for entry in await reader.next() if isinstance(entry, InputRequest)]
        reader.close()
        return await self.store.plan(self.run, [new_row(entry) for entry in entries], worker=self.worker)

    async def submit(self, *rows: Row) -> None:
        """Record that rows are about to be sent."""
        await self._take(rows, Intended, account=self.account)

    async def accept(self, *rows: Row) -> None:
        """Record that the gateway accepted rows."""
        await self.submit(*rows)
        for row in rows:
            await self._take([row], Accepted, task_id=f"task-{row.id}")

    async def complete(self, *rows: Row, folder: int, name: str = "{}.jpg") -> None:
        """Record that the tasks of rows completed, and which names their images get."""
        await self.accept(*rows)
        for row in rows:
            files = ((name.format(row.id), 0),)
            await self._take([row], Completed, task_id=f"task-{row.id}", folder=folder, files=files, seconds=1.0)

    async def save(self, *rows: Row, folder: int, completion: int = 1, name: str = "{}.jpg") -> None:
        """Record that the images of rows are saved, in this order."""
        await self.complete(*rows, folder=folder, name=name)
        for place, row in enumerate(rows, completion):
            files = ((name.format(row.id), len(JPEG)),)
            await self._take([row], Saved, folder=folder, files=files, completion=place)

    async def fail(self, *rows: Row, folder: int, completion: int = 1) -> None:
        """Record that the gateway rejected rows for good."""
        await self.submit(*rows)
        for place, row in enumerate(rows, completion):
            await self._take([row], Failed, error=REJECTION, folder=folder, completion=place)

    async def leave_uncertain(self, *rows: Row) -> None:
        """Record that the gateway may have accepted rows."""
        await self.submit(*rows)
        await self._take(rows, Uncertain)

    async def _take(self, rows: Iterable[Row], kind: type[Step], **details: Any) -> None:
        for row in rows:
            step = new_step(kind, row.attempt + 1, **details)
            (result,) = await self.store.apply(self.worker, [RowStep(row=row.id, step=step)])
            assert result.verdict is Verdict.APPLIED
