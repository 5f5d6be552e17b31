"""The record of one accepted task: no task of the event loop's, only what is known and who waits for it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from attrs import define, field

from kontext_async.decisions.watched import Watched
from kontext_async.errors import KontextError, TaskFailed
from kontext_async.models import Generation, TaskState, TaskStatus, Usage
from kontext_async.protocol import fingerprint, read_status

if TYPE_CHECKING:
    from collections.abc import Callable

    from kontext_async.engine.slots import Slots
    from kontext_async.models import KontextRequest

__all__ = ["Pending", "PendingWithImages", "Result", "result_of"]

Result: TypeAlias = Generation | KontextError
T = TypeVar("T")


@define(eq=False, weakref_slot=False)
class Pending(Watched):
    """A task that was accepted or attached.

    Attributes:
        request: What was asked for, None when attached.
        slots: Where its place is given back when it is finished, or no longer followed.
        heard: The body of the latest answer if somebody holds the task in their hands, and may ask for its status:
            empty before the first one. None if nobody does.
        result: The task's end, None while it has none. Other ways in which a wait may fail are not kept.
    """

    request: KontextRequest | None = None
    slots: Slots | None = None
    heard: bytes | None = field(default=None, init=False, repr=False)
    result: Result | None = field(default=None, init=False)
    _waiting: list[asyncio.Future[Result]] | None = field(default=None, init=False)
    _watching: list[asyncio.Future[KontextError | None]] | None = field(default=None, init=False)
    _callback: Callable[[Pending, Result], object] | None = field(default=None, init=False)

    @property
    def fingerprint(self) -> str | None:
        """The request's fingerprint, None when attached."""
        return None if self.request is None else fingerprint(self.request, ())

    @property
    def status(self) -> TaskStatus | None:
        """What the gateway said last, if it was heard."""
        return read_status(self.heard, self.task_id) if self.heard else None

    def hold(self) -> None:
        """Somebody has it in their hands from now on."""
        self.heard = self.heard or b""

    @property
    def waited_for(self) -> bool:
        """Whether anybody waits for it, with a deadline of their own."""
        return bool(self._waiting or self._watching)

    @property
    def wanted(self) -> bool:
        """Whether anybody waits for it, or wants to be called back."""
        return self.waited_for or self._callback is not None

    async def settled(self) -> Result:
        """How the task, or the wait for it, ends."""
        if self._waiting is None:
            self._waiting = []
        return await _listed(self._waiting)

    async def changed(self) -> KontextError | None:
        """The next change of `status`: None, or the error with which the wait for it ends."""
        if self._watching is None:
            self._watching = []
        return await _listed(self._watching)

    def when_settled(self, callback: Callable[[Pending, Result], object]) -> None:
        """Call `callback` once with how the task, or the wait for it, ends: at once, if it has.

        There is one for each task: that of whoever submitted it.
        """
        if self.result is None:
            self._callback = callback
        else:
            callback(self, _own(self.result))

    def call_off(self) -> None:
        """Call nobody back."""
        self._callback = None

    def own_result(self) -> Result | None:
        """The task's end, an error as the caller's own copy."""
        return self.result and _own(self.result)

    def hear(self, body: bytes) -> None:
        """Take down what the gateway said, if anybody may ask; whoever watches is told if it is something new."""
        if self.heard is not None and body != self.heard:
            self.heard = body
            self._tell_watchers(None)

    def settle(self, result: Result) -> None:
        """The end of the task, or of the wait for it. Everybody gets an error of their own."""
        if isinstance(result, Generation | TaskFailed):
            self.result = result
        if self.slots:
            slots, self.slots = self.slots, None
            slots.finished()
        if isinstance(result, KontextError):
            self._tell_watchers(result)
        waiting, self._waiting = self._waiting, None
        for future in waiting or ():
            if not future.done():
                future.set_result(_own(result))
        callback, self._callback = self._callback, None
        if callback:
            callback(self, _own(result))

    def _tell_watchers(self, error: KontextError | None) -> None:
        watching, self._watching = self._watching, None
        for future in watching or ():
            if not future.done():
                future.set_result(error and error.copy())


@define(eq=False, weakref_slot=False)
class PendingWithImages(Pending):
    """One whose request does not give the fingerprint by itself: the images may be gone by now.

    Attributes:
        digest: The bytes of the fingerprint.
    """

    digest: bytes = field(default=b"", kw_only=True)

    @property
    def fingerprint(self) -> str:
        """The request's fingerprint."""
        return self.digest.hex()


def result_of(task: Pending, status: TaskStatus, now: float) -> Generation | TaskFailed:
    """What a finished task's last status means."""
    if status.state is TaskState.COMPLETED and status.images:
        return Generation(
            task_id=task.task_id,
            model=status.model or (task.request.model if task.request else None),
            request=task.request,
            images=status.images,
            usage=status.usage or Usage(),
            created_at=status.created_at,
            elapsed=max(0.0, now - task.since),
            metadata=status.metadata,
        )
    if status.state is TaskState.COMPLETED:
        return TaskFailed(task_id=task.task_id, code=None, message="it was completed without a picture")
    problem = status.error
    return TaskFailed(
        task_id=task.task_id,
        code=problem.code if problem else None,
        message=problem.message if problem else "no reason was given",
    )


def _own(result: Result) -> Result:
    return result.copy() if isinstance(result, KontextError) else result


async def _listed(futures: list[asyncio.Future[T]]) -> T:
    """Wait with others; who is cancelled leaves the list, and touches nobody else."""
    future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    futures.append(future)
    try:
        return await future
    finally:
        if future in futures:
            futures.remove(future)
