"""Pytest fixtures over the emulator: ``pytest_plugins = ["kontext_async.testing.plugin"]``.

The emulator runs in a thread of its own, so the fixtures serve tests under pytest-asyncio, under anyio's plugin, and
those that are not async at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from anyio.from_thread import start_blocking_portal

from kontext_async.emulator import Emulator
from kontext_async.testing.settings import FAST

if TYPE_CHECKING:
    from collections.abc import Iterator

    from kontext_async.settings import Settings

__all__ = ["kontext_emulator", "kontext_emulator_options", "kontext_settings"]


@pytest.fixture
def kontext_emulator_options() -> dict[str, Any]:
    """What `kontext_emulator` is made with; override it in a module or a class. Tasks take a few milliseconds."""
    return {"service_time": 0.01, "pixels": 64 * 64}


@pytest.fixture
def kontext_emulator(kontext_emulator_options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Emulator]:
    """A running `Emulator`; the environment leads every `KontextSession()` that is made in the test to it."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(Emulator(**kontext_emulator_options)) as emulator,
    ):
        monkeypatch.setenv("KONTEXT_API_KEY", emulator.api_key or "any-key")
        monkeypatch.setenv("KONTEXT_BASE_URL", emulator.base_url)
        yield emulator


@pytest.fixture
def kontext_settings() -> Settings:
    """Settings that poll every few milliseconds: pass them to the sessions under test."""
    return FAST
