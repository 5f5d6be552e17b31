"""Pytest fixtures: the emulator, settings, and a store: ``pytest_plugins = ["kontext_async.testing.plugin"]``.

The emulator runs in its own thread, so the fixtures work with pytest-asyncio, with anyio's plugin, and in synchronous
tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from anyio.from_thread import start_blocking_portal

from kontext_async.emulator import Emulator
from kontext_async.store.memory import MemoryStore
from kontext_async.testing.settings import FAST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kontext_async.settings import Settings

__all__ = ["kontext_emulator", "kontext_emulator_options", "kontext_settings", "kontext_store"]


@pytest.fixture
def kontext_emulator_options() -> dict[str, Any]:
    """Return the arguments of the `Emulator`; override this in a module or class. Tasks take a few milliseconds."""
    return {"service_time": 0.01, "pixels": 64 * 64}


@pytest.fixture
def kontext_emulator(kontext_emulator_options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """Start an `Emulator`, and set the environment variables that point every `KontextSession()` in the test at it."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(Emulator(**kontext_emulator_options)) as emulator,
    ):
        monkeypatch.setenv("KONTEXT_API_KEY", emulator.api_key or "any-key")
        monkeypatch.setenv("KONTEXT_BASE_URL", emulator.base_url)
        monkeypatch.delenv("KONTEXT_GATEWAY", raising=False)  # the base URL is that of the default
        for name in ("NO_PROXY", "no_proxy"):  # a proxy of the machine does not reach its loopback
            monkeypatch.setenv(name, emulator.host)
        yield emulator


@pytest.fixture
def kontext_settings() -> Settings:
    """Return settings that poll every few milliseconds; pass them to the sessions under test."""
    return FAST


@pytest.fixture
def kontext_store() -> MemoryStore:
    """Return an empty store in memory, for ``KontextSession(store=kontext_store)``.

    Give ``kontext_store.share()`` to each further session: it finds the rows of the first, as another process would.
    """
    return MemoryStore()
