"""Sessions in fixtures of pytest-asyncio and anyio, under plain asyncio, and in applications of aiohttp.web."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from kontext_async import KontextSession, SessionClosed
from kontext_async.emulator import Emulator
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from kontext_async import Settings

pytest_plugins = ["kontext_async.testing.plugin"]

SESSION = web.AppKey("session", KontextSession)


@pytest_asyncio.fixture
async def pytest_asyncio_session(kontext_emulator: Emulator) -> AsyncIterator[KontextSession]:
    async with KontextSession(settings=FAST) as session:
        yield session


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def module_session() -> AsyncIterator[tuple[Emulator, KontextSession]]:
    async with (
        Emulator(service_time=0.01, pixels=4096) as emulator,
        KontextSession(emulator.api_key, base_url=emulator.base_url, settings=FAST) as session,
    ):
        yield emulator, session


@pytest.fixture
async def anyio_session(kontext_emulator: Emulator) -> AsyncIterator[KontextSession]:
    async with KontextSession(settings=FAST) as session:
        yield session


@pytest.mark.asyncio
async def test_a_session_lives_in_a_fixture_of_pytest_asyncio(
    pytest_asyncio_session: KontextSession, kontext_emulator: Emulator
) -> None:
    assert (await pytest_asyncio_session.generate("a fox")).images
    assert kontext_emulator.ledger.billed == 1


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("turn", [1, 2])
async def test_a_session_lives_in_a_fixture_on_the_loop_of_a_module(
    module_session: tuple[Emulator, KontextSession], turn: int
) -> None:
    emulator, session = module_session
    assert (await session.generate(f"fox {turn}")).images
    assert emulator.ledger.billed >= 1


@pytest.mark.anyio
async def test_a_session_lives_in_a_fixture_of_anyio(anyio_session: KontextSession, kontext_emulator: Emulator) -> None:
    outcomes = await anyio_session.generate_all(["a fox", "a hare"])
    assert all(outcome.ok for outcome in outcomes)
    assert kontext_emulator.ledger.billed == 2


def test_a_session_lives_under_plain_asyncio(kontext_emulator: Emulator, kontext_settings: Settings) -> None:
    async def use() -> bytes:
        async with KontextSession(settings=kontext_settings) as session:
            return await session.read((await session.generate("a fox")).images[0])

    assert asyncio.run(use())
    assert kontext_emulator.ledger.billed == 1


async def generate(request: web.Request) -> web.Response:
    generation = await request.app[SESSION].generate(request.query["prompt"])
    return web.json_response({"id": generation.task_id})


def install_cleanup_context(app: web.Application) -> None:
    async def context(app: web.Application) -> AsyncIterator[None]:
        async with KontextSession(settings=FAST) as app[SESSION]:
            yield

    app.cleanup_ctx.append(context)


def install_signals(app: web.Application) -> None:
    async def start(app: web.Application) -> None:
        app[SESSION] = await KontextSession(settings=FAST).start()

    async def stop(app: web.Application) -> None:
        await app[SESSION].aclose()

    app.on_startup.append(start)
    app.on_cleanup.append(stop)


@pytest.mark.anyio
@pytest.mark.parametrize("install", [install_cleanup_context, install_signals])
async def test_a_session_lives_in_a_web_application(
    install: Callable[[web.Application], None], kontext_emulator: Emulator
) -> None:
    app = web.Application()
    app.router.add_get("/image", generate)
    install(app)
    async with TestClient(TestServer(app)) as client:
        responses = await asyncio.gather(*(client.get("/image", params={"prompt": f"fox {n}"}) for n in range(40)))
        ids = {(await response.json())["id"] for response in responses}
    assert ids == set(kontext_emulator.ledger.task_ids)
    assert len(ids) == 40
    with pytest.raises(SessionClosed):
        await app[SESSION].generate("too late")
