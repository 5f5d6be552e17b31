"""Helpers for tests of a session against the emulator, or against a server of the test's own."""

from __future__ import annotations

import asyncio
import io
import time
from contextlib import asynccontextmanager
from itertools import count
from typing import TYPE_CHECKING, TypeVar

import anyio
from PIL import Image

from kontext_async import KontextSession, Settings
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

    from kontext_async.emulator import Emulator
    from kontext_async.events import Event
    from kontext_async.testing import ManualClock

    EventT = TypeVar("EventT", bound=Event)
    T = TypeVar("T")

UNTIL_SECONDS = 10
"""Seconds after which a condition that should become true fails the test."""

TURNS_AT_ONCE = 100
"""Turns of the loop within which a condition that depends on no thread becomes true."""

ENOUGH_TURNS = 10
"""Turns of the loop after which every asyncio task has run as far as it can."""


async def run_with_clock(awaitable: Awaitable[T], clock: ManualClock, session: KontextSession) -> T:
    """Await a result; whenever no request is in flight, advance the clock to its next timer."""
    task = asyncio.ensure_future(awaitable)
    quiet = 0
    for _ in range(100_000):
        await asyncio.sleep(0)
        if task.done():
            return await task
        busy = session.statistics().polls_in_flight or session._engine.scheduler._in_flight
        quiet = 0 if busy else quiet + 1
        if quiet > ENOUGH_TURNS and clock.next_at is not None:
            clock.advance(max(0.0, clock.next_at - clock.time()))
            quiet = 0
    raise AssertionError("there was no result")


async def until(condition: Callable[[], object]) -> None:
    """Let the event loop turn until `condition` is true. The condition is checked in each turn.

    After some turns it also sleeps in each: a loop that only turns would keep the GIL from the threads it waits for.
    """
    with anyio.fail_after(UNTIL_SECONDS):
        for turn in count():
            if condition():
                return
            if turn > TURNS_AT_ONCE:
                time.sleep(0.0001)  # `asyncio.sleep` would miss turns
            await asyncio.sleep(0)


async def turn_loop(turns: int) -> None:
    """Let the event loop turn a number of times."""
    for _ in range(turns):
        await asyncio.sleep(0)


def new_session(emulator: Emulator, settings: Settings = FAST) -> KontextSession:
    """Return a session for an emulator, not started."""
    return KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings)


def events_of(kind: type[EventT], events: Iterable[Event]) -> list[EventT]:
    """Return the events of one class, in order."""
    return [event for event in events if isinstance(event, kind)]


def count_creates(emulator: Emulator) -> int:
    """Return the number of create requests that arrived; a request for a price is none."""
    return sum(record.method == "POST" and "precharge" not in record.path for record in emulator.requests)


def count_downloads(emulator: Emulator) -> int:
    """Return the number of download requests that arrived."""
    return sum(record.origin == "files" for record in emulator.requests)


def encode_png(color: str = "red") -> bytes:
    """Return a small PNG image of one color."""
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), color).save(buffer, "PNG")
    return buffer.getvalue()


def encode_jpeg() -> bytes:
    """Return a small JPEG image."""
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), "red").save(buffer, "JPEG")
    return buffer.getvalue()


def decode_format(data: bytes) -> str | None:
    """Decode a whole image, and return its format."""
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        return image.format


@asynccontextmanager
async def raw_server(
    handler: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]],
) -> AsyncIterator[str]:
    """Serve TCP connections with `handler`; yield the server's HTTP address."""
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
