"""Runs requests and puts their pictures in place: several downloads at once, beside the tasks that are in flight."""

from __future__ import annotations

import itertools
from contextlib import aclosing
from typing import TYPE_CHECKING, Self

import anyio
import anyio.to_thread
from attrs import define, field

from kontext_async.cli.exits import ExitCode
from kontext_async.cli.output import Output, Result
from kontext_async.errors import (
    AuthenticationFailed,
    KontextError,
    PermissionDenied,
    SubmissionUncertain,
    TaskFailed,
    TaskNotFound,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from kontext_async.cli.listeners import Paid
    from kontext_async.models import Generation, KontextRequest, Outcome
    from kontext_async.session import KontextSession

__all__ = ["Delivery", "Feed", "Totals"]

DOWNLOADS_AT_ONCE = 32
"""Finished tasks that are being downloaded. When so many wait, outcomes are taken no faster than they are saved, and
with that submitting slows down, too: no picture waits until its URL expires."""

READ_AT_ONCE = 64


class Feed:
    """Requests from a file, read off the event loop, until it is stopped."""

    def __init__(self, requests: Iterable[KontextRequest]) -> None:
        self._requests = iter(requests)
        self._chunk: list[KontextRequest] = []
        self.stopped = False
        self.given = 0

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> KontextRequest:
        if not self._chunk and not self.stopped:
            self._chunk = await anyio.to_thread.run_sync(self._read)
        if self.stopped or not self._chunk:
            raise StopAsyncIteration
        self.given += 1
        return self._chunk.pop(0)

    def _read(self) -> list[KontextRequest]:
        return list(itertools.islice(self._requests, READ_AT_ONCE))


@define
class Totals:
    """What became of a run.

    Attributes:
        done: Requests whose pictures are in their place.
        failed: Requests that failed, apart from the uncertain ones.
        uncertain: Requests of which nobody knows whether they were accepted.
        refused: The error with which the gateway refused the key or the balance.
    """

    done: int = 0
    failed: int = 0
    uncertain: int = 0
    refused: KontextError | None = None

    def add(self, error: KontextError | None) -> None:
        """Count one request."""
        if error is None:
            self.done += 1
        elif isinstance(error, SubmissionUncertain):
            self.uncertain += 1
        else:
            self.failed += 1
            if isinstance(error, AuthenticationFailed | PermissionDenied):
                self.refused = error

    @property
    def exit_code(self) -> ExitCode:
        """What the command exits with: what may have cost money unseen comes first."""
        if self.uncertain:
            return ExitCode.UNCERTAIN
        if self.refused:
            return ExitCode.KEY_OR_BALANCE
        return ExitCode.FAILED if self.failed else ExitCode.DONE


@define
class Delivery:
    """One run over requests.

    Attributes:
        session: What runs them.
        output: Where results are printed.
        paid: The ids of what was accepted and not handed over.
        directory: Where the pictures go.
        name: A picture's name without an extension.
        totals: What became of them so far.
    """

    session: KontextSession
    output: Output
    paid: Paid
    directory: Path
    name: Callable[[Outcome, Generation], str]
    totals: Totals = field(factory=Totals)
    _free: anyio.Semaphore = field(factory=lambda: anyio.Semaphore(DOWNLOADS_AT_ONCE))

    async def run(self, feed: Feed) -> None:
        """Run all requests. When the key or the balance is refused, no more are submitted.

        Raises:
            KontextError: The requests cannot be read on, or the session has ended.
        """
        async with aclosing(self.session.generate_many(feed)) as outcomes, anyio.create_task_group() as downloads:
            async for outcome in outcomes:
                if outcome.generation is None:
                    self._report(outcome, error=outcome.error)
                else:
                    await self._free.acquire()
                    downloads.start_soon(self._save, outcome, outcome.generation)
                feed.stopped = self.totals.refused is not None

    async def _save(self, outcome: Outcome, generation: Generation) -> None:
        try:
            target = self.directory / self.name(outcome, generation)
            self._report(outcome, paths=await self.session.save(generation, target))
        except KontextError as error:
            self._report(outcome, error=error.with_task(generation.task_id))
        finally:
            self._free.release()

    def _report(self, outcome: Outcome, *, paths: list[Path] | None = None, error: KontextError | None = None) -> None:
        task_id = outcome.task_id or (error.task_id if error else None)
        self.totals.add(error)
        self.output.result(
            Result(
                index=outcome.index,
                request=outcome.request,
                task_id=task_id,
                paths=paths or [],
                cost=outcome.generation.usage.cost if outcome.generation else None,
                error=error,
            )
        )
        if error is None or isinstance(error, TaskFailed | TaskNotFound):  # of the rest, there is something to be had
            self.paid.settle(task_id)
