"""Runs a list of requests and saves their images: several downloads run beside the tasks in flight."""

from __future__ import annotations

import hashlib
import re
from contextlib import aclosing
from typing import TYPE_CHECKING

import anyio
from attrs import define, field

from kontext_async.bulk.filenames import slug
from kontext_async.cli.exit_codes import ExitCode
from kontext_async.cli.output import Output, Result
from kontext_async.cli.unsaved_tasks import UnsavedTasks
from kontext_async.errors import (
    AuthenticationFailed,
    KontextError,
    PermissionDenied,
    SubmissionUncertain,
    TaskFailed,
    TaskNotFound,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from kontext_async.models import Generation, KontextRequest, Outcome
    from kontext_async.session import KontextSession

__all__ = ["OutcomeCounts", "SaveAll", "image_name"]

DOWNLOADS_AT_ONCE = 32
"""Completed tasks to download at once. If more are waiting, no outcome is read until one is saved. That slows down
submitting too, so that no image waits until its URL expires."""

SAFE_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


@define
class OutcomeCounts:
    """The outcomes of a run so far.

    Attributes:
        done: Requests whose images are saved.
        failed: Requests that failed, except the uncertain ones.
        uncertain: Requests that the gateway may have accepted.
        refusal: The error with which the gateway refused the API key or the balance.
    """

    done: int = 0
    failed: int = 0
    uncertain: int = 0
    refusal: KontextError | None = None

    def add(self, error: KontextError | None) -> None:
        """Count one outcome."""
        if error is None:
            self.done += 1
        elif isinstance(error, SubmissionUncertain):
            self.uncertain += 1
        else:
            self.failed += 1
            if isinstance(error, AuthenticationFailed | PermissionDenied):
                self.refusal = error

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of the command. Uncertain requests come first: they may be billed unseen."""
        if self.uncertain:
            return ExitCode.UNCERTAIN
        if self.refusal:
            return ExitCode.KEY_OR_BALANCE
        return ExitCode.FAILED if self.failed else ExitCode.DONE

    def __str__(self) -> str:
        return f"{self.done} done, {self.failed} failed, {self.uncertain} uncertain"


@define
class SaveAll:
    """One run over a list of requests.

    Attributes:
        session: The session that runs the requests.
        requests: The requests.
        directory: The directory for the images.
        output: The output to print to.
        counts: The outcomes so far.
        unsaved: The tasks that are billed but not saved yet.
        submitted: Requests handed to the session so far.
    """

    session: KontextSession
    requests: Sequence[KontextRequest]
    directory: Path
    output: Output
    counts: OutcomeCounts = field(factory=OutcomeCounts)
    unsaved: UnsavedTasks = field(factory=UnsavedTasks)
    submitted: int = 0
    _free: anyio.Semaphore = field(factory=lambda: anyio.Semaphore(DOWNLOADS_AT_ONCE))

    async def run(self) -> None:
        """Run all requests. After the gateway refused the API key or the balance, submit no more.

        Raises:
            KontextError: The session ended.
        """
        async with (
            aclosing(self.session.generate_many(self._until_refused())) as outcomes,
            anyio.create_task_group() as downloads,
        ):
            async for outcome in outcomes:
                if outcome.generation is None:
                    self._report(outcome, error=outcome.error)
                else:
                    await self._free.acquire()
                    downloads.start_soon(self._save, outcome, outcome.generation)

    def _until_refused(self) -> Iterator[KontextRequest]:
        for request in self.requests:
            if self.counts.refusal:
                return
            self.submitted += 1
            yield request

    async def _save(self, outcome: Outcome, generation: Generation) -> None:
        paths: list[Path] = []
        failure: KontextError | None = None
        try:
            paths = await self.session.save(generation, self.directory / image_name(outcome, generation))
        except KontextError as error:
            failure = error.with_task(generation.task_id)
        finally:
            self._free.release()
        self._report(outcome, paths=paths, error=failure)

    def _report(self, outcome: Outcome, *, paths: list[Path] | None = None, error: KontextError | None = None) -> None:
        task_id = outcome.task_id or (error.task_id if error else None)
        self.counts.add(error)
        if error is None or isinstance(error, TaskFailed | TaskNotFound):  # else fetch may get images
            self.unsaved.discard(task_id)
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


def image_name(outcome: Outcome, generation: Generation) -> str:
    """Return a file name without extension, unique to the task: the start of the prompt, and the task ID.

    It is safe for every file system, even if the gateway sends a strange task ID.
    """
    task_id = generation.task_id
    if not SAFE_ID.fullmatch(task_id):
        digest = hashlib.sha256(task_id.encode()).hexdigest()[:12]
        task_id = f"{re.sub(r'[^A-Za-z0-9_-]', '_', task_id)[:40]}-{digest}"
    return f"{slug(outcome.request.prompt) if outcome.request else 'image'}-{task_id}"
