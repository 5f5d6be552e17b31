"""The owner of a session's background work: one task that enters and leaves its task group itself.

Everybody else only signals it. So a session can be started in one task and closed in another, as pytest's fixtures and
web servers do, where a task group held across a ``yield`` would fail with "exit cancel scope in a different task".
"""

from __future__ import annotations

import asyncio
import contextlib
from random import Random
from typing import TYPE_CHECKING

import anyio

from kontext_async.decisions.pacing import Pacer
from kontext_async.engine.context import Context
from kontext_async.engine.download import Downloader
from kontext_async.engine.hub import EventHub
from kontext_async.engine.poll_loop import PollLoop
from kontext_async.engine.pricing import Pricer
from kontext_async.engine.scheduler import Scheduler
from kontext_async.engine.slots import Slots
from kontext_async.engine.transport import Transport
from kontext_async.errors import KontextError, SessionClosed
from kontext_async.events import Abandoned, Accepted, Asked, Downloaded, Failed, Finished, HeldBack, Submitting
from kontext_async.models import SessionStatistics

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    import aiohttp
    from anyio.abc import TaskGroup

    from kontext_async.engine.clock import Clock
    from kontext_async.settings import Settings

__all__ = ["Service"]


class Service:
    """Joins the parts of the engine, and owns every task that they need.

    Attributes:
        when_ended: Called at the very end with what the session ended with.
    """

    def __init__(
        self, api_key: str, base_url: str, settings: Settings, http: aiohttp.ClientSession | None, clock: Clock
    ) -> None:
        self.settings = settings
        self.clock = clock
        self.hub = EventHub()
        self.transport = Transport(api_key, base_url, settings, http)
        context = Context(
            settings=settings,
            clock=clock,
            random=Random(),  # noqa: S311 # jitter is no secret
            hub=self.hub,
            start_soon=self.start_soon,
        )
        self.slots = Slots(Pacer(settings.limits.max_in_flight), clock)
        self.poll_loop = PollLoop(self.transport, context)
        self.scheduler = Scheduler(self.transport, self.slots, self.poll_loop, context)
        self.pricer = Pricer(self.transport, context)
        self.downloader = Downloader(self.transport, self.poll_loop, context)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._owner: asyncio.Task[None] | None = None
        self._group: TaskGroup | None = None
        self._stop = asyncio.Event()
        self.when_ended: set[Callable[[KontextError], object]] = set()
        self._crash: Exception | None = None

    @property
    def running(self) -> bool:
        """Whether it was started and nothing has ended it."""
        return self._owner is not None and not self._stop.is_set()

    async def start(self) -> None:
        """Begin; returns when everything is ready.

        Raises:
            SessionClosed: It was started before.
            ConfigurationError: The user's `aiohttp.ClientSession` cannot be used.
        """
        if self._owner is not None:
            raise SessionClosed("the session was started before; make a new one")
        self._loop = asyncio.get_running_loop()
        self.transport.open()
        ready = self._loop.create_future()
        self._owner = self._loop.create_task(self._own(ready), name="kontext_async session")
        try:
            await asyncio.shield(ready)
        except BaseException:
            self._stop.set()  # nobody holds what was not started, and so nobody would close it
            raise

    async def aclose(self) -> None:
        """End: whoever still waits gets `SessionClosed` with the id of the task, which goes on and is paid for.

        A create that is on the wire is waited for, as long as `Timeouts.cancel` allows. May be called from any task of
        the loop, and more than once; cancelling it does not stop the closing.

        Raises:
            SessionClosed: It is called on another loop.
        """
        self._check_loop()
        self._stop.set()
        if self._owner is not None:
            await asyncio.wait([self._owner])

    def check(self) -> None:
        """Whether it can be used here and now.

        Raises:
            SessionClosed: It was never started, is closed, has crashed, or belongs to another loop.
        """
        if self._owner is None:
            raise SessionClosed("the session was not started: use 'async with', or await start() first")
        self._check_loop()
        if self._stop.is_set() or self._owner.done():
            raise self._closed()

    def start_soon(self, work: Callable[..., Coroutine[Any, Any, None]], *args: object) -> None:
        """Run something as a task of the owner's.

        Raises:
            SessionClosed: It has ended.
        """
        if self._group is None:
            raise self._closed()
        self._group.start_soon(work, *args)

    def statistics(self) -> SessionStatistics:
        """The figures of this moment."""
        tally = self.hub.tally
        pacer = self.slots.pacer
        return SessionStatistics(
            queued=self.slots.queued,
            in_flight=pacer.in_flight,
            limit=int(pacer.limit),
            pending=self.poll_loop.pending,
            polls_in_flight=self.poll_loop.polls_in_flight,
            submitted=tally.count(Submitting),
            accepted=tally.count(Accepted),
            held_back=tally.count(HeldBack),
            asked=tally.count(Asked),
            finished=tally.count(Finished),
            failed=tally.count(Failed),
            uncertain=tally.uncertain,
            abandoned=tally.count(Abandoned),
            downloaded=tally.count(Downloaded),
            spent=tally.spent,
        )

    async def _own(self, ready: asyncio.Future[None]) -> None:
        try:
            async with anyio.create_task_group() as group:
                self._group = group
                ready.set_result(None)
                await self._stop.wait()
                self._end_waits()
                await self.scheduler.settle_attempts(self.settings.timeouts.cancel)
                group.cancel_scope.cancel()
        except Exception as error:  # noqa: BLE001 # whatever it is, nobody may wait on a dead loop
            self._crash = _first_cause(error)
        finally:
            self._stop.set()
            self._group = None
            self._end_waits()
            self.poll_loop.stop()
            self.scheduler.close(self._closed())
            for callback in tuple(self.when_ended):
                callback(self._closed())
            with anyio.CancelScope(shield=True):
                await self.transport.aclose()

    def _end_waits(self) -> None:
        self.slots.close(self._closed())
        self.scheduler.end_pauses()
        self.poll_loop.fail_all(self._closed())

    def _closed(self) -> KontextError:
        if self._crash is None:
            return SessionClosed("the session is closed")
        error = SessionClosed(f"the session's background work has crashed: {self._crash!r}")
        error.__cause__ = self._crash
        return error

    def _check_loop(self) -> None:
        with contextlib.suppress(RuntimeError):
            if self._loop in (None, asyncio.get_running_loop()):
                return
        raise SessionClosed("the session belongs to another event loop; make one on each loop")


def _first_cause(error: Exception) -> Exception:
    """What is inside a task group's exception group."""
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return error
