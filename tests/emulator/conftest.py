from __future__ import annotations

from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from emulator_support import Caller, ManualTime, Serve

from kontext_async.emulator import Emulator

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture
def clock() -> ManualTime:
    return ManualTime()


@pytest.fixture
async def serve(anyio_backend: str) -> AsyncIterator[Serve]:
    """Start emulators with small images, and close them after the test."""
    callers: list[Caller] = []

    async def start(**options: Any) -> Caller:
        emulator = Emulator(**{"service_time": 0, "pixels": 64 * 64, **options})
        await emulator.start()
        caller = Caller(emulator, aiohttp.ClientSession())
        callers.append(caller)
        return caller

    yield start
    for caller in callers:
        await caller.http.close()
        await caller.emulator.aclose()
