"""Shares: the parties among whom a session divides its slots. No await, no clock.

A share is created by its first request and dropped when it is idle. If it has used more than its part by then, its debt
is kept for `DEBT_SECONDS`, so that it gains nothing by leaving and coming again. The number of debts is bounded: a
session serves any number of names in constant memory.

Time is virtual here, as in start-time fair queuing (Goyal, Vin and Cheng, 1996): a share's `used` are its slot-seconds
for each unit of weight, and a share that begins starts at the `floor`, where the others are, and not at 0.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

from attrs import define, field, frozen

if TYPE_CHECKING:
    from collections.abc import Hashable
    from decimal import Decimal

__all__ = ["SESSION_SHARE", "UNBOUNDED", "Queueing", "ShareOptions", "ShareState", "Shares", "Ticket"]

DEBT_SECONDS = 60.0
"""The seconds for which the debt of an idle share is kept."""

MAX_DEBTS = 10_000
"""The most debts that are kept. The oldest are forgiven first."""

T = TypeVar("T")


@frozen
class ShareOptions:
    """The name of a share, and what it is entitled to.

    Attributes:
        name: The name; None for the session's own share.
        weight: Its part of the slots, in relation to the weights of the others in its class.
        priority: Its class. Higher ones come first.
        max_cost: USD that its requests may cost; None for no limit.
    """

    name: str | None = None
    weight: float = 1.0
    priority: int = 0
    max_cost: Decimal | None = None
    key: tuple[str | None, int] = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "key", (self.name, self.priority))


SESSION_SHARE = ShareOptions()


@frozen
class Queueing:
    """The terms on which a request waits for a slot.

    Attributes:
        share: The share for which it waits.
        is_patient: True if the limits on the queue do not concern it, because its sender bounds its own requests.
        until: The time until which it waits at most; None for no limit.
    """

    share: ShareOptions = SESSION_SHARE
    is_patient: bool = False
    until: float | None = None


UNBOUNDED = Queueing(is_patient=True)
"""The terms of a request that waits for the session's own share as long as it takes."""


@define(eq=False)
class Ticket(Generic[T]):
    """A request that waits for a slot.

    Attributes:
        share: The share for which it waits.
        pool: The models that share one limit with its own.
        number: Its place in the order of all requests.
        value: The request.
        counts: True if it counts for the limits on the queue.
    """

    share: ShareState[T]
    pool: Hashable
    number: int
    value: T
    counts: bool = True


@define(eq=False)
class ShareState(Generic[T]):
    """A share that has requests in flight, in the queue or throttled.

    Attributes:
        key: The name and the priority.
        weight: The weight.
        in_flight: Its requests that occupy a slot.
        throttled: Its requests that the gateway throttled, and that wait for a slot before the queue.
        used: Its slot-seconds for each unit of weight, in virtual time.
        queued: Its requests in the queue.
        counted: Those of them that count for the limits on the queue.
        lines: Its requests in the queue by pool, in their order.
        promised: The time until which room in the queue is promised to its requests that were refused.
        is_active: True if it has requests in flight, in the queue or throttled, so that it is kept.
    """

    key: tuple[str | None, int]
    weight: float = 1.0
    in_flight: int = 0
    throttled: int = 0
    used: float = 0.0
    queued: int = 0
    counted: int = 0
    lines: dict[Hashable, OrderedDict[int, Ticket[T]]] = field(factory=dict, init=False)
    promised: float = field(default=-math.inf, init=False)
    is_active: bool = field(default=False, init=False)

    @property
    def priority(self) -> int:
        """The class."""
        return self.key[1]

    @property
    def load(self) -> float:
        """The requests in flight for each unit of weight."""
        return self.in_flight / self.weight


@define
class Shares(Generic[T]):
    """The active shares, and the debts of idle ones.

    Attributes:
        floor: The virtual time: a share that begins starts here.
        active_weight: The sum of the weights of all shares that are not idle.
    """

    floor: float = field(default=0.0, init=False)
    active_weight: float = field(default=0.0, init=False)
    _active: dict[tuple[str | None, int], ShareState[T]] = field(factory=dict, init=False)
    _debts: OrderedDict[tuple[str | None, int], tuple[float, float]] = field(factory=OrderedDict, init=False)

    def __len__(self) -> int:
        return len(self._active)

    @property
    def debts(self) -> int:
        """The number of idle shares that are remembered."""
        return len(self._debts)

    def find(self, options: ShareOptions, now: float) -> ShareState[T]:
        """Return the state of a share. One that is idle is kept from its first request on: see `activate`."""
        state = self._active.get(options.key)
        if state is None:
            state = ShareState(options.key, options.weight)
            until, used = self._debts.get(options.key, (now, 0.0))
            state.used = max(self.floor, used if until > now else 0.0)
        return state

    def add_throttled(self, state: ShareState[T]) -> None:
        """Keep a share while a throttled request of it waits: the next request would find another state otherwise."""
        self.activate(state)
        state.throttled += 1

    def remove_throttled(self, state: ShareState[T], now: float) -> None:
        """Record that a throttled request no longer waits."""
        state.throttled -= 1
        self.drop_if_idle(state, now)

    def activate(self, state: ShareState[T]) -> None:
        """Keep a share that has a request in flight, in the queue or throttled."""
        if not state.is_active:
            state.is_active = True
            self._active[state.key] = state
            self._debts.pop(state.key, None)
            self.active_weight += state.weight

    def change_weight(self, state: ShareState[T], weight: float) -> None:
        """Change the weight of a share."""
        self.active_weight += (weight - state.weight) if state.is_active else 0.0
        state.weight = weight

    def drop_if_idle(self, state: ShareState[T], now: float) -> None:
        """Drop a share that has become idle, but for its debt."""
        if state.in_flight or state.queued or state.throttled or not state.is_active:
            return
        state.is_active = False
        del self._active[state.key]
        self.active_weight = self.active_weight - state.weight if self._active else 0.0
        self._forgive(now)
        if state.used > self.floor:
            self._debts[state.key] = (now + DEBT_SECONDS, state.used)

    def _forgive(self, now: float) -> None:
        """Forget the debts that are too old, or too many: they are in the order of their ends."""
        while self._debts:
            key, (until, _) = next(iter(self._debts.items()))
            if until > now and len(self._debts) < MAX_DEBTS:
                return
            del self._debts[key]
