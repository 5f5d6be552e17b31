"""Where a session lives: pytest-asyncio's fixtures, anyio's fixtures, aiohttp.web's two ways of starting and ending."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
import pytest_asyncio
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from kontext_async import KontextSession, SessionClosed
from kontext_async.emulator import Emulator
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kontext_async import Settings

pytest_plugins = ["kontext_async.testing.plugin"]

SESSION = web.AppKey("session", KontextSession)


@pytest_asyncio.fixture
async def in_pytest_asyncio(kontext_emulator: Emulator) -> AsyncIterator[KontextSession]:
    async with KontextSession(settings=FAST) as session:
        yield session


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def for_the_module() -> AsyncIterator[tuple[Emulator, KontextSession]]:
    async with (
        Emulator(service_time=0.01, pixels=4096) as emulator,
        KontextSession(emulator.api_key, base_url=emulator.base_url, settings=FAST) as session,
    ):
        yield emulator, session


@pytest.fixture
async def in_anyio(kontext_emulator: Emulator) -> AsyncIterator[KontextSession]:
    async with KontextSession(settings=FAST) as session:
        yield session


@pytest.mark.asyncio
async def test_a_fixture_of_pytest_asyncio(in_pytest_asyncio: KontextSession, kontext_emulator: Emulator) -> None:
    assert (await in_pytest_asyncio.generate("a fox")).images
    assert kontext_emulator.ledger.billed == 1


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("turn", [1, 2])
async def test_a_fixture_of_a_modules_loop(for_the_module: tuple[Emulator, KontextSession], turn: int) -> None:
    emulator, session = for_the_module
    assert (await session.generate(f"fox {turn}")).images
    assert emulator.ledger.billed >= 1


@pytest.mark.anyio
async def test_a_fixture_of_anyio(in_anyio: KontextSession, kontext_emulator: Emulator) -> None:
    outcomes = await in_anyio.generate_all(["a fox", "a hare"])
    assert all(outcome.ok for outcome in outcomes)
    assert kontext_emulator.ledger.billed == 2


def test_without_any_plugin(kontext_emulator: Emulator, kontext_settings: Settings) -> None:
    async def use() -> bytes:
        async with KontextSession(settings=kontext_settings) as session:
            return await session.read((await session.generate("a fox")).images[0])

    assert asyncio.run(use())
    assert kontext_emulator.ledger.billed == 1


async def picture(request: web.Request) -> web.Response:
    generation = await request.app[SESSION].generate(request.query["prompt"])
    return web.json_response({"id": generation.task_id})


def with_cleanup_context(app: web.Application) -> None:
    async def context(app: web.Application) -> AsyncIterator[None]:
        async with KontextSession(settings=FAST) as app[SESSION]:
            yield

    app.cleanup_ctx.append(context)


def with_signals(app: web.Application) -> None:
    async def start(app: web.Application) -> None:
        app[SESSION] = await KontextSession(settings=FAST).start()

    async def stop(app: web.Application) -> None:
        await app[SESSION].aclose()

    app.on_startup.append(start)
    app.on_cleanup.append(stop)


@pytest.mark.anyio
@pytest.mark.parametrize("install", [with_cleanup_context, with_signals])
async def test_a_web_server(install: Any, kontext_emulator: Emulator) -> None:
    app = web.Application()
    app.router.add_get("/picture", picture)
    install(app)
    async with TestClient(TestServer(app)) as client:
        answers = await asyncio.gather(*(client.get("/picture", params={"prompt": f"fox {n}"}) for n in range(40)))
        ids = {(await answer.json())["id"] for answer in answers}
    assert ids == set(kontext_emulator.ledger.task_ids)
    assert len(ids) == 40
    with pytest.raises(SessionClosed):
        await app[SESSION].generate("too late")
