"""Waits until the tasks in flight have ended, for a session that admits no further request."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from kontext_async.engine.clock import cancel_at
from kontext_async.events import Abandoned, Completed, Failed

if TYPE_CHECKING:
    from kontext_async.engine.context import Context
    from kontext_async.engine.poll_loop import PollLoop
    from kontext_async.engine.slot_pools import SlotPools

__all__ = ["wait_for_tasks"]


async def wait_for_tasks(slots: SlotPools, poll_loop: PollLoop, context: Context, seconds: float) -> None:
    """Wait until no request is in flight and nobody waits for a task, for a bounded time."""
    changed = asyncio.Event()
    unsubscribe = context.hub.subscribe(lambda _: changed.set(), Completed, Failed, Abandoned)
    slots.waiting.on_release.add(changed.set)
    try:
        with cancel_at(context.clock, context.clock.time() + seconds):
            while slots.in_flight or poll_loop.has_waiters:
                changed.clear()
                await changed.wait()
    finally:
        slots.waiting.on_release.discard(changed.set)
        unsubscribe()
