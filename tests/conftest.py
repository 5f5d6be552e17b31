from __future__ import annotations

import gc
import os
import signal
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import settings

from kontext_async import KontextSession
from kontext_async.emulator import Emulator
from kontext_async.testing import FAST, ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Generator, Iterator

    from kontext_async.events import Event

pytest_plugins = ["servers_support"]

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # to compile the package takes each process a third of a second

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in a background job of a shell: tests interrupt processes
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("suite", settings.default, max_examples=60, deadline=None)
settings.load_profile("suite")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Return the workers for ``-n auto``: more than there are CPUs, because most tests wait for a server or a clock."""
    return (os.cpu_count() or 1) + 2


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep ten thousand collected tests out of the garbage collector, which would take a second for them each time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def _with_own_environment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Reach the emulators of the tests directly, and keep the spools of the tests out of the user's home."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            patch.delenv(name, raising=False)
            patch.delenv(name.upper(), raising=False)
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / "state"))
        yield


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def clock() -> ManualClock:
    """A clock that the test turns."""
    return ManualClock()


@pytest.fixture
def emulator_options() -> dict[str, Any]:
    """The arguments of `emulator`; override it in a module or with `parametrize`."""
    return {"service_time": 0.01, "pixels": 64 * 64}


@pytest.fixture
async def emulator(anyio_backend: str, emulator_options: dict[str, Any]) -> AsyncIterator[Emulator]:
    async with Emulator(**emulator_options) as running:
        yield running


@pytest.fixture
async def session(emulator: Emulator) -> AsyncIterator[KontextSession]:
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=FAST) as running:
        yield running


@pytest.fixture
def events(session: KontextSession) -> list[Event]:
    """All events of `session`."""
    seen: list[Event] = []
    session.subscribe(seen.append)
    return seen
