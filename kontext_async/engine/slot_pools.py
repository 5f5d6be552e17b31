"""The slots of each pool of models: a full pool does not hold up the requests of another. See `decisions.pools`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kontext_async.decisions.concurrency import AdaptiveLimit
from kontext_async.decisions.pools import find_ceiling
from kontext_async.decisions.throttling import SessionPause
from kontext_async.engine.slots import ConcurrencySlots, Waiting

if TYPE_CHECKING:
    from collections.abc import Iterator
    from random import Random

    from kontext_async.engine.clock import Clock
    from kontext_async.errors import KontextError
    from kontext_async.gateways import Gateway, ModelPool
    from kontext_async.settings import Limits, Retries

__all__ = ["SlotPools"]


class SlotPools:
    """The slots of a session, by pool. The common pool is always there, another one from its first request on.

    Args:
        gateway: Says which models share a pool.
        limits: The ceilings.
        retries: The policy for pauses.
        clock: The source of the time.
        random: The source of random numbers.

    Attributes:
        waiting: The requests that wait in all pools, how long tasks take, and callbacks for the release of a slot.
    """

    def __init__(self, gateway: Gateway, limits: Limits, retries: Retries, clock: Clock, random: Random) -> None:
        self.waiting = Waiting()
        self._random = random
        self._gateway = gateway
        self._limits = limits
        self._retries = retries
        self._clock = clock
        self._end_error: KontextError | None = None
        self._slots: dict[str, tuple[ModelPool, ConcurrencySlots]] = {}
        self._common = self._add(gateway.common_pool)

    def __iter__(self) -> Iterator[ConcurrencySlots]:
        return iter([slots for _, slots in self._slots.values()])

    def of(self, model: str) -> ConcurrencySlots:
        """Return the slots of a model."""
        if not self._gateway.pools:
            return self._common
        pool = self._gateway.pool_of(model)
        known = self._slots.get(pool.name)
        return self._add(pool) if known is None else known[1]

    def has_room(self, model: str) -> bool:
        """Return True if a slot is free for a model, and no request waits for it."""
        return self.of(model).has_room

    @property
    def is_queue_full(self) -> bool:
        """True if no further request may wait."""
        return self._common.is_queue_full

    @property
    def expected_wait(self) -> float:
        """The seconds for which a request waits that joins the longest queue now, as far as durations are known."""
        return max(slots.expected_wait for slots in self)

    @property
    def has_demand(self) -> bool:
        """True if requests wait for a slot, or for the response that says whether they are accepted."""
        for _, slots in self._slots.values():  # noqa: SIM110 # a generator takes four times as long, at each request
            if slots.has_demand:
                return True
        return False

    @property
    def queued(self) -> int:
        """The number of requests that wait for a slot."""
        return sum(slots.queued for slots in self)

    @property
    def in_flight(self) -> int:
        """The slots in use."""
        return sum(slots.adaptive_limit.in_flight for slots in self)

    @property
    def limit(self) -> int:
        """The slots at present, in all pools that have been used."""
        return sum(slots.adaptive_limit.limit for slots in self)

    def set_limits(self, limits: Limits) -> None:
        """Change the ceilings: see `ConcurrencySlots.set_ceiling`."""
        self._limits = limits
        for pool, slots in self._slots.values():
            slots.set_ceiling(self._find_ceiling(pool))

    def pause_until(self, when: float) -> None:
        """Let no create request of any pool go out before a time: the gateway is not available at all."""
        for slots in self:
            slots.adaptive_limit.pause.extend(when)

    def close(self, error: KontextError) -> None:
        """Fail every waiting request, and every later one."""
        self._end_error = error
        for slots in self:
            slots.close(error)

    def _add(self, pool: ModelPool) -> ConcurrencySlots:
        limit = AdaptiveLimit(self._find_ceiling(pool), SessionPause(self._retries))
        slots = ConcurrencySlots(limit, self._clock, self._limits, self._random, waiting=self.waiting, pool=pool.name)
        if self._end_error:
            slots.close(self._end_error)
        self._slots[pool.name] = pool, slots
        return slots

    def _find_ceiling(self, pool: ModelPool) -> int:
        return find_ceiling(pool, self._limits, common=self._gateway.common_pool, pool_of=self._gateway.pool_of)
