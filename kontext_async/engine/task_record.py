"""The record of one accepted task: what is known of it, and who waits for it. It is no asyncio task."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias

from attrs import define, evolve, field

from kontext_async.decisions.polling.entry import PollEntry
from kontext_async.decisions.polling.watching import UNWATCHED, shortest_interval
from kontext_async.errors import KontextError, TaskCancelled, TaskFailed, TaskModerated
from kontext_async.gateways import GATEWAYS, Reference, plain_reference
from kontext_async.models import FailureKind, Generation, KontextRequest, TaskState, TaskStatus, Usage
from kontext_async.protocol import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from kontext_async.decisions.shares import ShareState
    from kontext_async.engine.slots import ConcurrencySlots
    from kontext_async.gateways import Gateway

__all__ = ["Result", "TaskRecord", "TaskRecordWithDigest", "read_reference", "refer", "reference_text", "result_of"]

Result: TypeAlias = Generation | KontextError
Change: TypeAlias = "asyncio.Future[KontextError | None]"
"""The next change of a task's status, or the error that ends the wait for it."""

FAILURES = {
    FailureKind.ERROR: TaskFailed,
    FailureKind.MODERATED: TaskModerated,
    FailureKind.CANCELLED: TaskCancelled,
}
"""The error of a task that ended without an image."""

PROMPT_ONLY = KontextRequest("a prompt")
"""A request that is nothing but a prompt."""


@define(eq=False, weakref_slot=False)
class TaskRecord(PollEntry):
    """A task that was accepted or attached. Waiting for it works as for an `asyncio.Future`.

    There may be a hundred thousand of these, so a record keeps the last response as bytes, and only for tasks that
    somebody holds; and of a request that is nothing but a prompt, only that. Python's collector visits all objects that
    may hold others while everybody waits, so there should be few for each task.

    Attributes:
        slots: Where the task's slot is released once the task ends, or is no longer polled.
        reference: The task's reference, where more than its ID is needed to find it.
        price: The price in the response to the create request, if it had one.
        share: The share that is charged for the slot.
        paid_until: The time until which the share is charged.
        retains_status: True if somebody holds the task and may ask for its status.
        last: The last status, if `retains_status`: the body of a response that says it all, or the status itself; None
            before the first one.
        result: The task's result; None until it has one. Other errors of a wait are not kept.
        receipt: Notes in the store that a caller has the result; None without a store.
    """

    _request: KontextRequest | str | None = field(default=None, alias="request")
    slots: ConcurrencySlots | None = None
    reference: Reference | None = field(default=None, kw_only=True)
    price: Usage | None = field(default=None, kw_only=True)
    share: ShareState[Any] | None = field(default=None, kw_only=True)
    paid_until: float = field(default=0.0, kw_only=True)
    retains_status: bool = field(default=False, init=False)
    last: bytes | TaskStatus | None = field(default=None, init=False, repr=False)
    result: Result | None = field(default=None, init=False)
    receipt: object | None = field(default=None, init=False, repr=False)
    _waiters: list[asyncio.Future[Result]] | None = field(default=None, init=False)
    _watchers: list[tuple[Change, float]] | None = field(default=None, init=False)
    _callback: Callable[[TaskRecord, Result], object] | None = field(default=None, init=False)
    _twins: list[TaskRecord] | None = field(default=None, init=False)

    @property
    def request(self) -> KontextRequest | None:
        """The request; None if the task was attached."""
        return KontextRequest.of(self._request) if isinstance(self._request, str) else self._request

    @property
    def request_kind(self) -> tuple[str, int] | None:
        """The model and the number of input images; None if the task was attached."""
        request = self._known
        return None if request is None else (request.model, len(request.input_images))

    @property
    def _known(self) -> KontextRequest | None:
        """A request that differs from the task's in the prompt at most; no other is made for that."""
        return PROMPT_ONLY if isinstance(self._request, str) else self._request

    @property
    def fingerprint(self) -> str | None:
        """The request's fingerprint; None if the task was attached."""
        request = self.request
        return None if request is None else fingerprint(request, ())

    @property
    def model(self) -> str | None:
        """The model; None if it is not known."""
        known = self._known or self.reference
        return None if known is None else known.model

    @property
    def addresses(self) -> tuple[str, ...]:
        """The task's own addresses, if it has any."""
        return () if self.reference is None else self.reference.addresses

    @property
    def stored_reference(self) -> str | None:
        """The text of the reference, where more than the ID is needed to find the task."""
        return None if self.reference is None else str(self.reference)

    def read_status(self, gateway: Gateway) -> TaskStatus | None:
        """Return the last status, if it was retained."""
        last = self.last
        return gateway.read_retained(self, last) if isinstance(last, bytes) else last

    @property
    def is_seen(self) -> bool:
        """True if a status has shown the task."""
        return self.last is not None or self.unfinished_at > self.since

    @property
    def has_waiters(self) -> bool:
        """True if anybody waits for the task, with a deadline of their own."""
        return bool(self._waiters or self._watchers)

    @property
    def has_observers(self) -> bool:
        """True if anybody waits for the task, or has asked to be called back."""
        return self.has_waiters or self._callback is not None

    @property
    def watch_interval(self) -> float:
        """The most seconds between two polls that a watcher of the task wants; infinite without a watcher."""
        return UNWATCHED if self._watchers is None else shortest_interval(every for _, every in self._watchers)

    def retain_status(self) -> None:
        """Keep the last response from now on."""
        self.retains_status = True

    async def wait(self) -> Result:
        """Wait for the task's result, or for the error that ends the wait. A cancelled waiter affects no other.

        Returns:
            The result, at once if there is one; an error as the caller's own copy.
        """
        if self.result is not None:
            return _copy(self.result)
        if self._waiters is None:
            self._waiters = []
        waiters = self._waiters
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        waiters.append(future)
        try:
            return await future
        finally:
            if future in waiters:
                waiters.remove(future)

    @contextmanager
    def watcher(self, every: float) -> Iterator[Change]:
        """Watch the task in the body of the ``with`` statement: its next change of `status` is to be awaited there.

        Args:
            every: The most seconds between two polls, as `watch_interval` then says.
        """
        if self._watchers is None:
            self._watchers = []
        watchers = self._watchers
        watcher: tuple[Change, float] = (asyncio.get_running_loop().create_future(), every)
        watchers.append(watcher)
        try:
            yield watcher[0]
        finally:
            if watcher in watchers:
                watchers.remove(watcher)

    def add_done_callback(self, callback: Callable[[TaskRecord, Result], object]) -> None:
        """Call `callback` once with the result, or with the error that ends the wait: at once if there is a result.

        A task has at most one callback: that of the batch that submitted it.
        """
        if self.result is None:
            self._callback = callback
        else:
            callback(self, _copy(self.result))

    def remove_done_callback(self) -> None:
        """Forget the callback."""
        self._callback = None

    def copy_result(self) -> Result | None:
        """Return the task's result, an error as the caller's own copy."""
        return self.result and _copy(self.result)

    def add_twin(self, twin: TaskRecord) -> None:
        """End `twin` together with this record: a gateway may return one ID for several create requests."""
        if twin is self or (self._twins and twin in self._twins) or not (twin.slots or twin.has_observers):
            return
        self._twins = [*(self._twins or ()), twin]

    def record_status(self, last: bytes | TaskStatus) -> None:
        """Record a status, if anybody may ask for it; wake the watchers if it is a new one."""
        if self.retains_status and last != self.last:
            self.last = last
            self._wake_watchers(None)

    def set_result(self, result: Result) -> None:
        """Record the task's result, or the error that ends the wait. Every waiter gets an error of its own."""
        if isinstance(result, Generation | TaskFailed):
            self.result = result
        if self.slots and self.share:
            slots, self.slots = self.slots, None
            slots.release_task(self.share, self.paid_until)
        if isinstance(result, KontextError):
            self._wake_watchers(result)
        waiters, self._waiters = self._waiters, None
        for future in waiters or ():
            if not future.done():
                future.set_result(_copy(result))
        callback, self._callback = self._callback, None
        if callback:
            callback(self, _copy(result))
        twins, self._twins = self._twins, None
        for twin in twins or ():
            twin.set_result(evolve(result, request=twin.request) if isinstance(result, Generation) else _copy(result))

    def _wake_watchers(self, error: KontextError | None) -> None:
        watchers, self._watchers = self._watchers, None
        for change, _ in watchers or ():
            if not change.done():
                change.set_result(error and error.copy())


@define(eq=False, weakref_slot=False)
class TaskRecordWithDigest(TaskRecord):
    """A record whose request alone does not give the fingerprint: its images may have changed or gone since.

    Attributes:
        digest: The fingerprint as bytes.
    """

    digest: bytes = field(default=b"", kw_only=True)

    @property
    def fingerprint(self) -> str:
        """The request's fingerprint."""
        return self.digest.hex()


def refer(task: TaskRecord, gateway: Gateway) -> Reference:
    """Return the reference of a task."""
    return task.reference or gateway.refer(task.task_id, task.model)


def reference_text(task: TaskRecord, gateway: Gateway) -> str:
    """Return the reference of a task as text."""
    return task.stored_reference or plain_reference(gateway.name, task.task_id)


def read_reference(text: str | None) -> Reference | None:
    """Return the reference that a row has; None if the ID is enough. Its hosts are checked before they are polled.

    Raises:
        InvalidRequest: It is not one that this library wrote.
    """
    return None if text is None else Reference.parse(text, GATEWAYS)


def result_of(task: TaskRecord, status: TaskStatus, now: float) -> Generation | TaskFailed:
    """Return what a task's terminal status means."""
    if status.state is TaskState.COMPLETED and status.images:
        request, reference = task.request, task.stored_reference
        return Generation(
            task_id=task.task_id,
            model=status.model or (request.model if request else None),
            request=request,
            images=tuple(evolve(each, reference=reference) for each in status.images) if reference else status.images,
            usage=status.usage or task.price or Usage(),
            created_at=status.created_at,
            elapsed=max(0.0, now - task.since),
            metadata=status.metadata,
            omitted_images=status.omitted_images,
        )
    if status.state is TaskState.COMPLETED:
        return TaskFailed(task_id=task.task_id, code=None, message="it completed without an image")
    detail = status.error
    failed = FAILURES[detail.kind if detail else FailureKind.ERROR](
        task_id=task.task_id,
        code=detail.code if detail else None,
        message=detail.message if detail else "no reason was given",
    )
    if isinstance(failed, TaskCancelled):
        failed.cost = status.usage.cost if status.usage else None
        failed.may_be_charged = failed.cost != 0
    return failed


def _copy(result: Result) -> Result:
    return result.copy() if isinstance(result, KontextError) else result
