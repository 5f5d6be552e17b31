"""Uploads on their way: bounded in number, from every kind of source, released at the end."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING

import aiohttp
import anyio
import pytest
from aiohttp import web
from PIL import Image
from session_support import until
from upload_support import (
    LARGE,
    UploadGateway,
    count_descriptors,
    input_image_of,
    needs_descriptors,
    upload_session,
    write_large,
)

from kontext_async import InvalidRequest, KontextRequest, KontextSession

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from kontext_async.emulator import Emulator

pytestmark = [pytest.mark.anyio, needs_descriptors]


@pytest.fixture
def gateway() -> UploadGateway:
    return UploadGateway()


class TestMaxUploads:
    async def test_uploads_in_flight_are_bounded(self, gateway: UploadGateway, tmp_path: Path) -> None:
        path = write_large(tmp_path)
        async with upload_session(gateway, max_uploads=3) as session, asyncio.TaskGroup() as group:
            for _ in range(9):
                group.create_task(session.submit("edit", input_images=[path]))
            await until(lambda: gateway.paused == 3)
            assert count_descriptors(of=tmp_path) == 3
            assert session.statistics().in_flight == 3
            gateway.resume.set()
        assert gateway.most_paused == 3
        assert len(gateway.bodies) == 9

    async def test_small_requests_do_not_queue_behind_uploads(self, gateway: UploadGateway) -> None:
        async with upload_session(gateway, max_uploads=1) as session, asyncio.TaskGroup() as group:
            large = [group.create_task(session.submit("edit", input_images=[LARGE])) for _ in range(30)]
            await until(lambda: gateway.paused)
            for _ in range(30):
                await session.submit("a fox")
                await session.submit("like that one", input_images=["http://127.0.0.1/fox.jpg"])
            assert not any(task.done() for task in large)
            gateway.resume.set()
        assert len(gateway.bodies) == 90


class TestSharedSources:
    async def test_many_requests_share_a_pillow_image(self, gateway: UploadGateway) -> None:
        buffer = io.BytesIO()
        Image.effect_noise((300, 300), 50).save(buffer, "PNG")
        gateway.stop_after = 10_000_000
        with Image.open(buffer) as lazy:
            async with upload_session(gateway) as session, asyncio.TaskGroup() as group:
                for _ in range(16):
                    group.create_task(session.submit("edit", input_images=[lazy]))
        assert len(gateway.bodies) == 16
        assert len(set(gateway.bodies)) == 1

    async def test_many_requests_share_an_open_file(self, gateway: UploadGateway, tmp_path: Path) -> None:
        gateway.resume.set()
        with write_large(tmp_path).open("rb") as file:
            async with upload_session(gateway) as session, asyncio.TaskGroup() as group:
                for _ in range(10):
                    group.create_task(session.submit("edit", input_images=[file]))
            assert file.tell() == 0
        assert {input_image_of(body) for body in gateway.bodies} == {LARGE}


class TestAsyncReaders:
    SIZES = (100, 300_000)
    """One that stays in memory, and one that is spooled to disk."""

    @pytest.fixture
    async def session(self, gateway: UploadGateway) -> AsyncIterator[KontextSession]:
        """A session whose uploads do not pause; at its end, every file must be closed."""
        gateway.resume.set()
        before = count_descriptors()
        async with upload_session(gateway) as session:
            yield session
            assert count_descriptors() == before

    @pytest.mark.parametrize("size", SIZES)
    async def test_a_file_of_anyio_is_uploaded(
        self, session: KontextSession, gateway: UploadGateway, size: int, tmp_path: Path
    ) -> None:
        await anyio.Path(tmp_path / "fox.gif").write_bytes(LARGE[:size])
        async with await anyio.open_file(tmp_path / "fox.gif", "rb") as file:
            await session.submit("edit", input_images=file)
        assert input_image_of(gateway.bodies[-1]) == LARGE[:size]

    @pytest.mark.parametrize("size", SIZES)
    async def test_an_upload_of_starlette_is_uploaded(
        self, session: KontextSession, gateway: UploadGateway, size: int
    ) -> None:
        starlette = pytest.importorskip("starlette.datastructures")
        with io.BytesIO(LARGE[:size]) as file:
            await session.submit("edit", input_images=[starlette.UploadFile(file)])
        assert input_image_of(gateway.bodies[-1]) == LARGE[:size]

    @pytest.mark.parametrize("size", SIZES)
    @pytest.mark.parametrize("kind", ["stream", "part"])
    async def test_a_request_of_aiohttp_is_uploaded(
        self, session: KontextSession, gateway: UploadGateway, size: int, kind: str
    ) -> None:
        async def edit(request: web.Request) -> web.Response:
            if kind == "part":
                part = await (await request.multipart()).next()
                assert isinstance(part, aiohttp.BodyPartReader)
                await session.submit("edit", input_images=[part])
            else:
                await session.submit("edit", input_images=[request.content])
            return web.Response()

        app = web.Application()
        app.router.add_post("/", edit)
        runner = web.AppRunner(app)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        body = {"image": io.BytesIO(LARGE[:size])} if kind == "part" else LARGE[:size]
        async with aiohttp.ClientSession() as http, http.post(url, data=body) as response:
            assert response.status == 200
        assert input_image_of(gateway.bodies[-1]) == LARGE[:size]
        await runner.cleanup()

    async def test_an_estimate_is_refused_and_leaves_the_reader_unread(
        self, session: KontextSession, tmp_path: Path
    ) -> None:
        await anyio.Path(tmp_path / "fox.gif").write_bytes(LARGE[:100])
        async with await anyio.open_file(tmp_path / "fox.gif", "rb") as file:
            request = KontextRequest("edit", input_images=file)
            with pytest.raises(InvalidRequest, match="estimate the request without it"):
                await session.estimate(request)
            await session.submit(request)


async def test_every_source_of_an_image_is_accepted_by_the_emulator(
    session: KontextSession, emulator: Emulator, tmp_path: Path
) -> None:
    path = tmp_path / "fox.png"
    Image.effect_noise((900, 700), 80).save(path)
    with Image.open(path) as image:
        outcomes = await session.generate_all(
            KontextRequest("edit", input_images=[source]) for source in (path, path.read_bytes(), image)
        )
    assert [outcome.error for outcome in outcomes] == [None] * 3
    assert emulator.ledger.billed == 3
