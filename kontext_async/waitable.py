"""A value for whose changes tasks wait. It is lighter than an `asyncio.Event`: there is one for each request."""

from __future__ import annotations

import asyncio

from attrs import define, field

__all__ = ["Waitable"]


@define(eq=False)
class Waitable:
    """The base of values for whose changes tasks wait. It makes objects only if one of them waits.

    A waiter that is cancelled affects neither the value nor other waiters; if they awaited one future, it would.
    """

    _waiters: list[asyncio.Future[None]] | None = field(default=None, init=False, repr=False)

    def next_change(self) -> asyncio.Future[None]:
        """Return a future for one task, which is done at the next change."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self._waiters is None:
            self._waiters = []
        self._waiters.append(waiter)
        return waiter

    def wake_waiters(self) -> None:
        """Wake the tasks that wait for a change."""
        waiters, self._waiters = self._waiters, None
        for waiter in waiters or ():
            if not waiter.done():
                waiter.set_result(None)
