"""The queue before the slots: it decides whose request is next. No await, no clock.

1. A class of higher `priority` comes first. While a lower one waits, the lower ones together get `LOWER_PART` of the
   slot-seconds that are assigned, as far as durations are known, so that nobody starves.
2. Within a class the share with the fewest requests in flight for its weight is next.
3. Among equals, the one that has used the fewest slot-seconds for its weight. A share is charged with the expected
   duration of a request when its slot is assigned, and corrected when the slot is released: counting requests would be
   unfair where one task takes a second and another one a minute.
4. Among these, the one whose request has waited longest. Within a share and a pool of models, the order is first in,
   first out. A share whose first request has no room, because its pool is full, is skipped.

The next request is found in O(log n) for n shares that wait. A share that waits and has changed is entered again with
its new position before the next request is taken. Entries whose position is no longer that of their share are
discarded when they come to the top, or when they are the most part of the heap.
"""

from __future__ import annotations

from collections import OrderedDict
from heapq import heapify, heappop, heappush
from itertools import count
from typing import TYPE_CHECKING, Generic, TypeAlias, TypeVar

from attrs import define, field

from kontext_async.decisions.shares import Shares, Ticket

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable

    from kontext_async.decisions.shares import ShareOptions, ShareState

__all__ = ["FairQueue"]

LOWER_PART = 0.1
"""The part of the assigned slot-seconds that the lower classes get, while both they and the higher ones wait."""

STALE_ENTRIES = 64
"""The discarded entries that a heap may have beside one for each share."""

T = TypeVar("T")

Position: TypeAlias = tuple[float, float, int]
"""The load of a share, its use, and the number of its first request."""


@define
class Lane(Generic[T]):
    """The shares of one class that wait for one pool.

    Attributes:
        waiting: The number of shares.
    """

    pool: Hashable
    waiting: int = field(default=0, init=False)
    _heap: list[tuple[Position, int, ShareState[T]]] = field(factory=list, init=False)
    _moved: dict[ShareState[T], None] = field(factory=dict, init=False)
    _serial: count[int] = field(factory=count, init=False)

    def place(self, share: ShareState[T]) -> None:
        """Note that the position of a share has changed. It is entered once, however often it changes until `first`."""
        self._moved[share] = None

    def join(self, share: ShareState[T]) -> None:
        """Note that a share waits from now on."""
        self.waiting += 1
        self.place(share)

    def leave(self, share: ShareState[T]) -> None:
        """Note that a share no longer waits."""
        self.waiting -= 1
        self._moved.pop(share, None)

    def first(self) -> tuple[Position, ShareState[T]]:
        """Return the position of the share that is next, and the share."""
        for share in self._moved:
            heappush(self._heap, (self._position(share), next(self._serial), share))
        self._moved.clear()
        if len(self._heap) > 2 * self.waiting + STALE_ENTRIES:
            self._heap = [entry for entry in self._heap if self._is_current(entry)]
            heapify(self._heap)
        while not self._is_current(self._heap[0]):
            heappop(self._heap)
        position, _, share = self._heap[0]
        return position, share

    def _position(self, share: ShareState[T]) -> Position:
        return share.load, share.used, next(iter(share.lines[self.pool]))

    def _is_current(self, entry: tuple[Position, int, ShareState[T]]) -> bool:
        position, _, share = entry
        return self.pool in share.lines and position == self._position(share)


@define
class FairQueue(Generic[T]):
    """The requests that wait for a slot, and the shares for which they wait.

    Attributes:
        shares: The shares.
        queued: The number of requests that wait.
        counted: The number of waiting requests that count for the limits on the queue.
    """

    shares: Shares[T] = field(factory=Shares, init=False)
    queued: int = field(default=0, init=False)
    counted: int = field(default=0, init=False)
    _numbers: count[int] = field(factory=count, init=False)
    _lanes: dict[tuple[int, Hashable], Lane[T]] = field(factory=dict, init=False)
    _waiting: dict[int, int] = field(factory=dict, init=False)  # requests by class
    _in_pools: dict[Hashable, int] = field(factory=dict, init=False)  # requests by pool
    _owed: dict[int, float] = field(factory=dict, init=False)  # slot-seconds, by class, to the classes below it

    def share(self, options: ShareOptions, now: float) -> ShareState[T]:
        """Return a share with the weight that it has from now on."""
        share = self.shares.find(options, now)
        if share.weight != options.weight:
            self.shares.change_weight(share, options.weight)
            self._place(share)
        return share

    def push(self, share: ShareState[T], pool: Hashable, value: T, *, counts: bool = True) -> Ticket[T]:
        """Add a request at the end of the line of its share and pool.

        Args:
            share: The share, from `shares`.
            pool: The models that share one limit with that of the request.
            value: The request.
            counts: True if it counts for the limits on the queue.
        """
        self.shares.activate(share)
        ticket = Ticket(share, pool, next(self._numbers), value, counts)
        share.queued += 1
        share.counted += counts
        self.queued += 1
        self.counted += counts
        priority = share.priority
        self._waiting[priority] = self._waiting.get(priority, 0) + 1
        self._in_pools[pool] = self._in_pools.get(pool, 0) + 1
        line = share.lines.get(pool)
        if line:
            line[ticket.number] = ticket
        else:
            share.lines[pool] = OrderedDict({ticket.number: ticket})
            lane = self._lanes.get((priority, pool))
            if lane is None:
                lane = self._lanes[priority, pool] = Lane(pool)
            lane.join(share)
        return ticket

    def count(self, pool: Hashable) -> int:
        """Return the number of requests that wait for a pool."""
        return self._in_pools.get(pool, 0)

    def remove(self, ticket: Ticket[T], now: float) -> None:
        """Remove a request that no longer waits. Do nothing if it was removed before."""
        if self._take(ticket):
            self.shares.drop_if_idle(ticket.share, now)

    def pop(self, has_room: Callable[[Hashable], bool] | None = None) -> Ticket[T] | None:
        """Remove the request that is next, and return it; None if none has room.

        The caller then charges its share, or, if the request has left meanwhile, has the share dropped if it is idle.

        Args:
            has_room: Returns True if a request of a pool may go out; None if all pools have room.
        """
        firsts: dict[int, tuple[Position, ShareState[T], Hashable]] = {}
        for (priority, pool), lane in self._lanes.items():
            if has_room is None or has_room(pool):
                position, share = lane.first()
                if priority not in firsts or position < firsts[priority][0]:
                    firsts[priority] = position, share, pool
        if not firsts:
            return None
        _, share, pool = firsts[next(iter(firsts)) if len(firsts) == 1 else self._class_in_turn(sorted(firsts))]
        ticket = next(iter(share.lines[pool].values()))
        self._take(ticket)
        return ticket

    def charge(self, share: ShareState[T], seconds: float) -> None:
        """Record that a request of a share occupies a slot from now on, for an expected number of seconds."""
        self.shares.activate(share)
        self.shares.floor = max(self.shares.floor, share.used)
        share.in_flight += 1
        if self._waiting:
            self._account_for_classes(share.priority, seconds)
        self._add_use(share, seconds)

    def release(self, share: ShareState[T], correction: float, now: float) -> None:
        """Record that a request of a share no longer occupies its slot.

        Args:
            share: The share.
            correction: The seconds for which it occupied its slot beyond those that were charged; negative for fewer.
            now: The present time.
        """
        share.in_flight -= 1
        self._add_use(share, correction)
        self.shares.drop_if_idle(share, now)

    def _add_use(self, share: ShareState[T], seconds: float) -> None:
        share.used += seconds / share.weight
        self._place(share)

    def _place(self, share: ShareState[T]) -> None:
        for pool in share.lines:
            self._lanes[share.priority, pool].place(share)

    def _take(self, ticket: Ticket[T]) -> bool:
        share, pool = ticket.share, ticket.pool
        line = share.lines.get(pool)
        if line is None or ticket.number not in line:
            return False
        is_first = next(iter(line)) == ticket.number
        del line[ticket.number]
        share.queued -= 1
        share.counted -= ticket.counts
        self.queued -= 1
        self.counted -= ticket.counts
        self._leave_class(share.priority)
        self._in_pools[pool] -= 1
        lane = self._lanes[share.priority, pool]
        if not line:
            del share.lines[pool]
            lane.leave(share)
            if not lane.waiting:
                del self._lanes[share.priority, pool]
        elif is_first:
            lane.place(share)
        return True

    def _leave_class(self, priority: int) -> None:
        self._waiting[priority] -= 1
        if not self._waiting[priority]:  # nobody saves up; what was too much still counts
            del self._waiting[priority]
            for each in self._owed:
                if each >= priority:
                    self._owed[each] = min(self._owed[each], 0.0)

    def _class_in_turn(self, priorities: list[int]) -> int:
        """Return the class whose turn it is, of several in ascending order."""
        while len(priorities) > 1:
            highest = priorities.pop()
            if self._owed.get(highest, 0.0) <= 0:
                return highest
        return priorities[0]

    def _account_for_classes(self, priority: int, seconds: float) -> None:
        """Note what the classes below each one are owed, after a class has been charged with slot-seconds."""
        lower_waits = False
        for each in self._waiting:
            if each > priority:
                self._owed[each] = self._owed.get(each, 0.0) - seconds
            elif each < priority:
                lower_waits = True
        if lower_waits:
            self._owed[priority] = self._owed.get(priority, 0.0) + seconds * LOWER_PART / (1 - LOWER_PART)
