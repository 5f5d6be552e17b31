"""The session's event stream: who listens, and the tally that `statistics()` shows, which is a listener too."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING

from kontext_async.errors import SubmissionUncertain
from kontext_async.events import Event, Failed, Finished

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import ParamSpec, TypeVar

    EventT = TypeVar("EventT", bound=Event)
    P = ParamSpec("P")

__all__ = ["EventHub", "Tally"]


class Tally:
    """Counts events by kind, and adds up what finished tasks cost."""

    def __init__(self) -> None:
        self.spent = Decimal(0)
        self.uncertain = 0
        self._counts: defaultdict[type, int] = defaultdict(int)

    def __call__(self, event: Event) -> None:
        """Take down one event."""
        self.add(type(event))
        if isinstance(event, Finished):
            if event.fingerprint:  # what was attached was paid for elsewhere, and may be seen finished many times
                self.spent += event.generation.usage.cost or 0
        elif isinstance(event, Failed) and isinstance(event.error, SubmissionUncertain):
            self.uncertain += 1

    def add(self, kind: type) -> None:
        """There was one more event of a kind."""
        self._counts[kind] += 1

    def count(self, kind: type[Event]) -> int:
        """How many events of a kind there were."""
        return self._counts[kind]


class EventHub:
    """Passes every event to every listener, in order; a listener that raises disturbs nobody."""

    def __init__(self) -> None:
        self.tally = Tally()
        self._listeners: list[Callable[[Event], object]] = []

    def subscribe(self, listener: Callable[[Event], object]) -> Callable[[], None]:
        """Call `listener` with each event from now on.

        Returns:
            A function that ends it; calling it twice does no harm.
        """
        entry = partial(listener)  # its own object, so that a listener may subscribe twice
        self._listeners.append(entry)

        def unsubscribe() -> None:
            if entry in self._listeners:
                self._listeners.remove(entry)

        return unsubscribe

    def emit(self, event: Event) -> None:
        """Tell everybody."""
        self.tally(event)
        for listener in tuple(self._listeners):
            try:
                listener(event)
            except Exception as error:  # noqa: BLE001 # a progress bar's fault must not lose a paid picture
                asyncio.get_running_loop().call_exception_handler(
                    {"message": f"a listener to {type(event).__name__} raised", "exception": error}
                )

    def emit_if_heard(self, kind: type[EventT], make: Callable[P, EventT], *args: P.args, **kwargs: P.kwargs) -> None:
        """Tell everybody, if there is anybody: an event as frequent as an ask is not made for nobody."""
        if self._listeners:
            self.emit(make(*args, **kwargs))
        else:
            self.tally.add(kind)
