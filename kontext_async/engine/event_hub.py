"""The session's event stream: its subscribers, and the counts behind `KontextSession.statistics`."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from decimal import Decimal
from typing import TYPE_CHECKING

from attrs import frozen

from kontext_async.errors import SubmissionUncertain
from kontext_async.events import Completed, Event, Failed

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, ParamSpec, TypeVar

    from kontext_async.models import Generation

    EventT = TypeVar("EventT", bound=Event)
    P = ParamSpec("P")

__all__ = ["EventCounts", "EventHub"]

REMEMBERED_TASKS = 4096
"""Completed tasks to remember, so that the cost of none is added twice."""


class EventCounts:
    """The number of events of each kind, and the sum of what completed tasks cost."""

    def __init__(self) -> None:
        self.spent = Decimal(0)
        self.uncertain = 0
        self._counts: defaultdict[type, int] = defaultdict(int)
        self._counted: dict[str, None] = {}

    def record(self, event: Event) -> None:
        """Count one event."""
        if isinstance(event, Completed):
            self.record_completed(event.generation, is_billed=bool(event.fingerprint))
            return
        self.add(type(event))
        if isinstance(event, Failed) and isinstance(event.error, SubmissionUncertain):
            self.uncertain += 1

    def record_completed(self, generation: Generation, *, is_billed: bool) -> None:
        """Count a completed task, and add what it cost.

        Args:
            generation: Its result.
            is_billed: False for an attached task, which was billed elsewhere.
        """
        self.add(Completed)
        if is_billed and self._is_first(generation.task_id):
            self.spent += generation.usage.cost or 0

    def _is_first(self, task_id: str) -> bool:
        """Return False if the task was counted before: a gateway may return one ID for several create requests."""
        if task_id in self._counted:
            return False
        self._counted[task_id] = None
        if len(self._counted) > REMEMBERED_TASKS:
            del self._counted[next(iter(self._counted))]
        return True

    def add(self, kind: type) -> None:
        """Count one event of a kind that carries no money."""
        self._counts[kind] += 1

    def count(self, kind: type[Event]) -> int:
        """Return the number of events of a kind."""
        return self._counts[kind]


@frozen(eq=False)  # each subscription is its own, so that one callback may subscribe twice
class _Subscription:
    callback: Callable[[Any], object]
    kinds: tuple[type[Event], ...]
    listens: Callable[[type[Event]], bool] | None
    heeds: Callable[[Generation], bool] | None

    def covers(self, kind: type[Event]) -> bool:
        return not self.kinds or issubclass(kind, self.kinds)

    def wants(self, kind: type[Any]) -> bool:
        return self.listens is None or self.listens(kind)


class EventHub:
    """Delivers every event to its subscribers, in order. A subscriber that raises affects no other.

    The subscribers to one task are found by its ID: an event costs the same with a thousand of them as with one.
    """

    def __init__(self) -> None:
        self.counts = EventCounts()
        self._subscriptions: dict[str | None, list[_Subscription]] = {}
        self._everywhere: dict[type[Event], list[_Subscription]] = {}  # those to all tasks, by the kind that they cover

    def subscribe(
        self,
        callback: Callable[[Any], object],
        *kinds: type[Event],
        task_id: str | None = None,
        listens: Callable[[type[Event]], bool] | None = None,
        heeds: Callable[[Generation], bool] | None = None,
    ) -> Callable[[], None]:
        """Call `callback` with each event from now on.

        Args:
            callback: Is called with each event.
            kinds: The event classes to deliver; none delivers all of them.
            task_id: The task whose events to deliver; None delivers those of all tasks, and those of none.
            listens: Says whether it listens to a class at the moment; None if it always does.
            heeds: Takes note of each completed task, whose event is costly to make, and says whether the event has to
                be made; None if `listens` says that.

        Returns:
            A function that ends the subscription; calling it twice does no harm.
        """
        subscription = _Subscription(callback, kinds, listens, heeds)
        self._subscriptions.setdefault(task_id, []).append(subscription)
        self._everywhere.clear()

        def unsubscribe() -> None:
            self._everywhere.clear()
            others = self._subscriptions.get(task_id, [])
            if subscription in others:
                others.remove(subscription)
                if not others:
                    del self._subscriptions[task_id]

        return unsubscribe

    def emit(self, event: Event) -> None:
        """Count the event and deliver it."""
        self.counts.record(event)
        kind = type(event)
        for subscription in [each for each in self._find(kind, event.task_id) if each.wants(kind)]:
            try:
                subscription.callback(event)
            except Exception as error:  # noqa: BLE001 # a faulty progress bar must not lose a paid image
                _report(kind, error)

    def emit_if_wanted(
        self, kind: type[EventT], task_id: str | None, make: Callable[P, EventT], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Deliver an event that is costly to make, as `make` makes it. Only count it if no subscriber wants it."""
        for subscription in self._find(kind, task_id):
            if subscription.wants(kind):
                self.emit(make(*args, **kwargs))
                return
        self.counts.add(kind)

    def emit_completed(
        self, generation: Generation, make: Callable[P, Completed], *args: P.args, **kwargs: P.kwargs
    ) -> None:
        """Deliver the completion of a task as `emit_if_wanted` does, and count what the task cost in any case."""
        if self._is_completion_wanted(generation):
            self.emit(make(*args, **kwargs))
        else:
            self.counts.record_completed(generation, is_billed=generation.request is not None)

    def _is_completion_wanted(self, generation: Generation) -> bool:
        """Return True if a subscriber wants the event of a completed task. Each that heeds completions takes note."""
        is_wanted = False
        for subscription in self._find(Completed, generation.task_id):
            heeds = subscription.heeds
            try:
                is_wanted |= subscription.wants(Completed) if heeds is None else heeds(generation)
            except Exception as error:  # noqa: BLE001 # as in `emit`
                _report(Completed, error)
        return is_wanted

    def _find(self, kind: type[Any], task_id: str | None) -> list[_Subscription]:
        """Return the subscriptions to all tasks, and those to this one, that cover a kind."""
        everywhere = self._everywhere.get(kind)
        if everywhere is None:  # found once, because each poll asks for them
            everywhere = [each for each in self._subscriptions.get(None, ()) if each.covers(kind)]
            self._everywhere[kind] = everywhere
        here = self._subscriptions.get(task_id) if task_id is not None else None
        return [*everywhere, *(each for each in here if each.covers(kind))] if here else everywhere


def _report(kind: type[Event], error: Exception) -> None:
    asyncio.get_running_loop().call_exception_handler(
        {"message": f"a subscriber to {kind.__name__} raised", "exception": error}
    )
