"""Sessions of each gateway, over one emulator that speaks all dialects."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kontext_async import KontextSession
from kontext_async.emulator import Emulator
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from kontext_async.store.base import Store

__all__ = ["base_url_of", "connect", "end_lease", "new_emulator", "store_of"]


def new_emulator(**options: Any) -> Emulator:
    """Return an emulator with small images, not started."""
    return Emulator(**{"service_time": 0.02, "pixels": 64 * 64, **options})


def base_url_of(name: str, emulator: Emulator) -> str:
    """Return the base URL of a gateway at an emulator."""
    return emulator.base_url_of(name)


def connect(name: str, emulator: Emulator, **options: Any) -> KontextSession:
    """Return a session of a gateway, not started. The hosts of the tasks of `bfl` are trusted."""
    hosts = emulator.region_hosts if name == "bfl" else ()
    given = {"settings": FAST, "trusted_hosts": hosts, **options}
    return KontextSession(emulator.api_key, base_url=base_url_of(name, emulator), gateway=name, **given)


def store_of(session: KontextSession) -> Store:
    """Return the store of a running session."""
    stored = session._engine.stored
    assert stored
    return stored.worker.store


async def end_lease(session: KontextSession) -> None:
    """End the lease of a session's worker, as if its process had been killed a while ago."""
    stored = session._engine.stored
    assert stored
    await stored.worker.store.beat(stored.worker.number, 0.0)
