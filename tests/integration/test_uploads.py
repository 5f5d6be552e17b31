"""Creates with images, while they are on their way: sources that change, connections that break, callers who go."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import re
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import attrs
import pytest
from aiohttp import web
from PIL import Image

from kontext_async import (
    InvalidRequest,
    KontextRequest,
    KontextSession,
    Limits,
    RateLimited,
    SubmissionUncertain,
    Timeouts,
)
from kontext_async.events import Event, Failed, Submitting
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from kontext_async.emulator import Emulator

pytestmark = [pytest.mark.anyio, pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="it counts descriptors")]

LARGE = b"GIF89a" + os.urandom(8_000_000)
"""More than the buffers of two sockets hold."""

ACCEPTED = b'{"id":"task-1","status":"completed","output":[{"content":[{"url":"http://127.0.0.1/fox.jpg"}]}]}'
TOO_MANY = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0\r\nContent-Length: 0\r\n%b\r\n"


class Gateway:
    """A server that reads a body as far as it is told, and then does as it is told.

    Attributes:
        stop_after: Bytes after which it waits for `go`.
        bodies: What came whole.
        begun: Creates of which the head came.
        waiting: Creates that wait for `go`.
        at_once: The most of them at one time.
    """

    def __init__(self) -> None:
        self.stop_after = 100_000
        self.go = asyncio.Event()
        self.bodies: list[bytes] = []
        self.begun = 0
        self.waiting = 0
        self.at_once = 0
        self.answers: list[bytes | None] = []
        """What is answered in the middle of the next bodies; nothing closes the connection there."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            match = re.search(rb"content-length: (\d+)", head.lower())
            assert match
            length = int(match[1])
            self.begun += 1
            body = b""
            if length > self.stop_after:
                body = await reader.readexactly(self.stop_after)
                if self.answers:
                    answer = self.answers.pop(0)
                    if answer is None:
                        writer.transport.abort()
                        return
                    writer.write(answer)
                    await writer.drain()
                    if b"close" in answer:
                        return
                else:
                    self.waiting += 1
                    self.at_once = max(self.at_once, self.waiting)
                    await self.go.wait()
                    self.waiting -= 1
            body += await reader.readexactly(length - len(body))
            self.bodies.append(body)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(ACCEPTED) + ACCEPTED)


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


@asynccontextmanager
async def session_with(gateway: Gateway, **limits: Any) -> AsyncIterator[KontextSession]:
    server = await asyncio.start_server(gateway.serve, "127.0.0.1", 0)
    address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    settings = attrs.evolve(FAST, limits=Limits(**limits), timeouts=Timeouts(cancel=5))
    async with server, KontextSession("key", base_url=address, settings=settings) as session:
        yield session


def descriptors(*, of: Path | None = None) -> int:
    """Open files of this process, sockets apart."""
    targets = []
    for link in Path("/proc/self/fd").iterdir():
        try:
            targets.append(str(link.readlink()))
        except FileNotFoundError:
            continue
    return sum(target.startswith(str(of) if of else "/") and not target.startswith("/dev") for target in targets)


def image_in(body: bytes) -> bytes:
    return base64.b64decode(json.loads(body)["input"][0]["params"]["input_image"])


class TestASourceThatChanges:
    async def submit_and(
        self, gateway: Gateway, source: Any, change: Callable[[], object], until: Any
    ) -> tuple[InvalidRequest, list[Event]]:
        """Submit, change the source when half of the body is out, and go on."""
        events: list[Event] = []
        async with session_with(gateway) as session:
            session.subscribe(events.append)
            submitting = asyncio.create_task(session.submit("edit", input_images=[source]))
            await until(lambda: gateway.waiting)
            change()
            gateway.go.set()
            with pytest.raises(InvalidRequest) as caught:
                await submitting
            assert session.statistics().in_flight == 0
            assert session.statistics().uncertain == 0
        error = caught.value
        assert error.field == "input_images[0]"
        assert not error.may_be_charged
        assert "nothing is paid" in error.rule
        assert gateway.bodies == []
        assert gateway.begun == 1
        return error, events

    async def test_a_file_that_is_overwritten(self, gateway: Gateway, tmp_path: Path, until: Any) -> None:
        path = tmp_path / "fox.gif"
        path.write_bytes(LARGE)

        def overwrite() -> None:
            with path.open("r+b") as file:
                file.seek(len(LARGE) - 10)
                file.write(b"changed")

        error, events = await self.submit_and(gateway, path, overwrite, until)
        assert "it changed while it was being sent" in error.rule
        assert "fox.gif" in error.value
        assert [type(event) for event in events] == [Submitting, Failed]

    async def test_a_file_whose_time_was_put_back(self, gateway: Gateway, tmp_path: Path, until: Any) -> None:
        path = tmp_path / "fox.gif"
        path.write_bytes(LARGE)
        before = path.stat()

        def overwrite() -> None:
            with path.open("r+b") as file:
                file.seek(len(LARGE) - 10)
                file.write(b"changed")
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

        error, _ = await self.submit_and(gateway, path, overwrite, until)
        assert "it changed while it was being sent" in error.rule

    async def test_a_file_that_is_cut(self, gateway: Gateway, tmp_path: Path, until: Any) -> None:
        path = tmp_path / "fox.gif"
        path.write_bytes(LARGE)
        error, _ = await self.submit_and(gateway, str(path), lambda: os.truncate(path, 1_000_000), until)
        assert "it became shorter while it was being sent" in error.rule

    async def test_a_bytearray_that_is_overwritten(self, gateway: Gateway, until: Any) -> None:
        data = bytearray(LARGE)

        def overwrite() -> None:
            data[-10] ^= 1
            with pytest.raises(BufferError):
                data.clear()

        error, _ = await self.submit_and(gateway, data, overwrite, until)
        assert "it changed while it was being sent" in error.rule
        data.clear()

    async def test_a_view_of_what_can_be_written_is_watched_too(self, gateway: Gateway, until: Any) -> None:
        data = bytearray(LARGE)
        view = memoryview(data).toreadonly()
        await self.submit_and(gateway, view, lambda: data.__setitem__(-10, data[-10] ^ 1), until)

    async def test_a_disk_that_fails(
        self, gateway: Gateway, tmp_path: Path, until: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from kontext_async.images.contents import FileContent

        path = tmp_path / "fox.gif"
        path.write_bytes(LARGE)

        def fail(*_: object) -> bytes:
            raise OSError(5, "Input/output error")

        error, _ = await self.submit_and(
            gateway, path, lambda: monkeypatch.setattr(FileContent, "read_at", fail), until
        )
        assert "Input/output error" in error.rule
        assert isinstance(error.__cause__, OSError)

    @pytest.mark.parametrize("way", ["vanished", "replaced", "touched", "renamed and back"])
    async def test_between_the_check_and_the_first_byte(self, gateway: Gateway, tmp_path: Path, way: str) -> None:
        path = tmp_path / "fox.gif"
        path.write_bytes(LARGE)

        def change(event: Event) -> None:
            if not isinstance(event, Submitting):
                return
            if way == "vanished":
                path.unlink()
            elif way == "replaced":
                (tmp_path / "new.gif").write_bytes(LARGE)
                (tmp_path / "new.gif").replace(path)
            elif way == "touched":
                os.utime(path, ns=(1, 1))
            else:
                path.rename(tmp_path / "b").rename(path)

        gateway.go.set()
        async with session_with(gateway) as session:
            session.subscribe(change)
            if way == "renamed and back":
                await session.submit("edit", input_images=[path])
                assert image_in(gateway.bodies[0]) == LARGE
                return
            words = "it has vanished since" if way == "vanished" else "it has changed since"
            with pytest.raises(InvalidRequest, match=f"{words} it was checked") as caught:
                await session.submit("edit", input_images=[path])
            assert not caught.value.may_be_charged
            assert session.statistics().submitted == 1
        assert gateway.bodies == []

    async def test_what_happens_to_the_path_while_the_file_is_sent_does_not_matter(
        self, gateway: Gateway, tmp_path: Path, until: Any
    ) -> None:
        path = tmp_path / "fox.gif"
        path.write_bytes(LARGE)
        async with session_with(gateway) as session:
            submitting = asyncio.create_task(session.submit("edit", input_images=[path]))
            await until(lambda: gateway.waiting)
            path.unlink()
            gateway.go.set()
            await submitting
        assert image_in(gateway.bodies[0]) == LARGE

    async def test_an_answer_that_came_before_wins(self, gateway: Gateway, tmp_path: Path) -> None:
        """The gateway refused in the middle of the body; that the source is gone now does not matter."""
        path = tmp_path / "fox.gif"
        path.write_bytes(LARGE)
        refused = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        gateway.answers = [refused]
        async with session_with(gateway) as session:
            with pytest.raises(Exception, match="413") as caught:
                await session.submit("edit", input_images=[path])
            assert not isinstance(caught.value, InvalidRequest | SubmissionUncertain)


class TestInTheMiddleOfAnUpload:
    @pytest.mark.parametrize("ending", [b"", b"Connection: close\r\n"], ids=["open", "closed"])
    @pytest.mark.parametrize("way", ["bytes", "file", "reader"])
    async def test_a_429_and_then_all_of_it_again(
        self, gateway: Gateway, tmp_path: Path, ending: bytes, way: str
    ) -> None:
        path = tmp_path / "fox.gif"
        path.write_bytes(LARGE)
        gateway.answers = [TOO_MANY % ending] * 2
        gateway.go.set()
        async with session_with(gateway) as session, await anyio.open_file(path, "rb") as reader:
            sources: dict[str, Any] = {"bytes": LARGE, "file": path, "reader": reader}
            await session.submit("edit", input_images=[sources[way]])
            assert session.statistics().submitted == 3
            assert session.statistics().uncertain == 0
        assert image_in(gateway.bodies[-1]) == LARGE

    @pytest.mark.parametrize("way", ["bytes", "file"])
    async def test_a_cut_connection_is_no_request(self, gateway: Gateway, tmp_path: Path, way: str) -> None:
        path = tmp_path / "fox.gif"
        path.write_bytes(LARGE)
        gateway.answers = [None, None]
        gateway.go.set()
        async with session_with(gateway) as session:
            await session.submit("edit", input_images=[LARGE if way == "bytes" else path])
            assert session.statistics().submitted == 3
        assert [image_in(body) for body in gateway.bodies] == [LARGE]

    async def test_a_connection_that_is_cut_behind_the_last_byte_is_uncertain(self, tmp_path: Path) -> None:
        path = tmp_path / "fox.gif"
        path.write_bytes(LARGE)

        async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            match = re.search(rb"content-length: (\d+)", head.lower())
            assert match
            await reader.readexactly(int(match[1]))
            writer.transport.abort()

        server = await asyncio.start_server(swallow, "127.0.0.1", 0)
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with server, KontextSession("key", base_url=address, settings=FAST) as session:
            with pytest.raises(SubmissionUncertain):
                await session.submit("edit", input_images=[path])
            assert session.statistics().submitted == 1

    async def test_when_it_is_refused_for_good_everything_is_given_back(self, gateway: Gateway, tmp_path: Path) -> None:
        path = tmp_path / "fox.gif"
        path.write_bytes(LARGE)
        gateway.answers += [TOO_MANY % b"Connection: close\r\n"] * 2 * FAST.retries.attempts
        before = descriptors()
        async with session_with(gateway, max_uploads=1) as session:
            for _ in range(2):
                with pytest.raises(RateLimited):
                    await session.submit("edit", input_images=[path, io.BufferedReader(io.BytesIO(LARGE))])
            assert descriptors() == before


class TestACancelledUpload:
    async def test_it_is_finished_all_the_same(self, gateway: Gateway, tmp_path: Path, until: Any) -> None:
        path = tmp_path / "fox.gif"
        path.write_bytes(LARGE)
        async with session_with(gateway, max_uploads=1) as session:
            submitting = asyncio.create_task(session.submit("edit", input_images=[path]))
            await until(lambda: gateway.waiting)
            submitting.cancel()
            gateway.go.set()
            with pytest.raises(asyncio.CancelledError):
                await submitting
            assert session.statistics().accepted == 1
            assert descriptors(of=tmp_path) == 0
            await session.submit("another", input_images=[path])
        assert [image_in(body) for body in gateway.bodies] == [LARGE, LARGE]

    async def test_one_whose_caller_did_not_stay_has_its_source_to_the_end(
        self, gateway: Gateway, tmp_path: Path, until: Any
    ) -> None:
        path = tmp_path / "fox.gif"
        path.write_bytes(LARGE)
        server = await asyncio.start_server(gateway.serve, "127.0.0.1", 0)
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        settings = attrs.evolve(FAST, limits=Limits(max_uploads=1), timeouts=Timeouts(cancel=0.01))
        async with server, KontextSession("key", base_url=address, settings=settings) as session:
            submitting = asyncio.create_task(session.submit("edit", input_images=[path]))
            await until(lambda: gateway.waiting)
            submitting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await submitting
            assert descriptors(of=tmp_path) == 1
            gateway.go.set()
            await until(lambda: session.statistics().accepted)
            await until(lambda: not descriptors(of=tmp_path))
        assert [image_in(body) for body in gateway.bodies] == [LARGE]

    async def test_while_a_reader_is_read(self, gateway: Gateway, until: Any) -> None:
        class Slow:
            def __init__(self) -> None:
                self.given = 0

            async def read(self, size: int = -1) -> bytes:
                if self.given > 1_000_000:
                    await asyncio.Event().wait()
                self.given += size
                return LARGE[:size]

        before = descriptors()
        async with session_with(gateway, max_uploads=1) as session:
            slow = Slow()
            request = KontextRequest("edit", input_images=slow)
            submitting = asyncio.create_task(session.submit(request))
            await until(lambda: slow.given > 1_000_000)
            assert descriptors() == before + 1
            submitting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await submitting
            assert descriptors() == before
            with pytest.raises(InvalidRequest, match="read once"):
                await session.submit(request)
            gateway.go.set()
            await session.submit("the place is free", input_images=[LARGE])

    async def test_while_it_waits_for_a_place(self, gateway: Gateway, until: Any) -> None:
        async with session_with(gateway, max_uploads=1) as session:
            first = asyncio.create_task(session.submit("edit", input_images=[LARGE]))
            await until(lambda: gateway.waiting)
            second = asyncio.create_task(session.submit("edit", input_images=[LARGE]))
            await asyncio.sleep(0)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            gateway.go.set()
            await first
            await session.submit("edit", input_images=[LARGE])
        assert gateway.begun == 2

    async def test_a_session_that_is_closed(self, gateway: Gateway, tmp_path: Path, until: Any) -> None:
        path = tmp_path / "fox.gif"
        path.write_bytes(LARGE)
        server = await asyncio.start_server(gateway.serve, "127.0.0.1", 0)
        address = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        settings = attrs.evolve(FAST, timeouts=Timeouts(cancel=0.01))
        async with server:
            async with KontextSession("key", base_url=address, settings=settings) as session:
                submitting = asyncio.create_task(session.submit("edit", input_images=[path]))
                await until(lambda: gateway.waiting)
            with pytest.raises(SubmissionUncertain):
                await submitting
            await until(lambda: not descriptors(of=tmp_path))
            gateway.go.set()


class TestPlaces:
    async def test_so_many_bodies_are_on_the_way_and_no_more(
        self, gateway: Gateway, tmp_path: Path, until: Any
    ) -> None:
        path = tmp_path / "fox.gif"
        path.write_bytes(LARGE)
        async with session_with(gateway, max_uploads=3) as session, asyncio.TaskGroup() as group:
            for _ in range(9):
                group.create_task(session.submit("edit", input_images=[path]))
            await until(lambda: gateway.waiting == 3)
            assert descriptors(of=tmp_path) == 3
            assert session.statistics().in_flight == 3
            gateway.go.set()
        assert gateway.at_once == 3
        assert len(gateway.bodies) == 9

    async def test_small_creates_do_not_queue_behind_large_ones(self, gateway: Gateway, until: Any) -> None:
        async with session_with(gateway, max_uploads=1) as session, asyncio.TaskGroup() as group:
            large = [group.create_task(session.submit("edit", input_images=[LARGE])) for _ in range(30)]
            await until(lambda: gateway.waiting)
            for _ in range(30):
                await session.submit("a fox")
                await session.submit("as that one", input_images=["http://127.0.0.1/fox.jpg"])
            assert not any(task.done() for task in large)
            gateway.go.set()
        assert len(gateway.bodies) == 90

    async def test_one_picture_of_pillows_in_many_requests(self, gateway: Gateway) -> None:
        buffer = io.BytesIO()
        Image.effect_noise((300, 300), 50).save(buffer, "PNG")
        gateway.stop_after = 10_000_000
        with Image.open(buffer) as lazy:
            async with session_with(gateway) as session, asyncio.TaskGroup() as group:
                for _ in range(16):
                    group.create_task(session.submit("edit", input_images=[lazy]))
        assert len(gateway.bodies) == 16
        assert len(set(gateway.bodies)) == 1

    async def test_one_open_file_in_many_requests(self, gateway: Gateway, tmp_path: Path) -> None:
        gateway.go.set()
        (tmp_path / "fox.gif").write_bytes(LARGE)
        with (tmp_path / "fox.gif").open("rb") as file:
            async with session_with(gateway) as session, asyncio.TaskGroup() as group:
                for _ in range(10):
                    group.create_task(session.submit("edit", input_images=[file]))
            assert file.tell() == 0
        assert {image_in(body) for body in gateway.bodies} == {LARGE}


class TestAsyncReaders:
    @pytest.fixture
    def sizes(self) -> list[int]:
        return [100, 300_000]

    @pytest.fixture
    async def free(self, gateway: Gateway) -> AsyncIterator[KontextSession]:
        gateway.go.set()
        before = descriptors()
        async with session_with(gateway) as session:
            yield session
            assert descriptors() == before

    async def test_files_of_anyio(
        self, free: KontextSession, gateway: Gateway, sizes: list[int], tmp_path: Path
    ) -> None:
        for size in sizes:
            await anyio.Path(tmp_path / "fox.gif").write_bytes(LARGE[:size])
            async with await anyio.open_file(tmp_path / "fox.gif", "rb") as file:
                await free.submit("edit", input_images=file)
            assert image_in(gateway.bodies[-1]) == LARGE[:size]

    async def test_uploads_of_starlette(self, free: KontextSession, gateway: Gateway, sizes: list[int]) -> None:
        starlette = pytest.importorskip("starlette.datastructures")
        for size in sizes:
            with io.BytesIO(LARGE[:size]) as file:
                await free.submit("edit", input_images=[starlette.UploadFile(file)])
            assert image_in(gateway.bodies[-1]) == LARGE[:size]

    async def test_streams_and_parts_of_aiohttp(self, free: KontextSession, gateway: Gateway, sizes: list[int]) -> None:
        async def edit(request: web.Request) -> web.Response:
            if request.content_type.startswith("multipart/"):
                part = await (await request.multipart()).next()
                assert isinstance(part, aiohttp.BodyPartReader)
                await free.submit("edit", input_images=[part])
            else:
                await free.submit("edit", input_images=[request.content])
            return web.Response()

        app = web.Application()
        app.router.add_post("/", edit)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
        async with aiohttp.ClientSession() as http:
            for size in sizes:
                for body in (LARGE[:size], {"image": io.BytesIO(LARGE[:size])}):
                    async with http.post(url, data=body) as answer:
                        assert answer.status == 200
                    assert image_in(gateway.bodies[-1]) == LARGE[:size]
        await runner.cleanup()

    async def test_a_price_is_not_asked_with_one(self, free: KontextSession, tmp_path: Path) -> None:
        await anyio.Path(tmp_path / "fox.gif").write_bytes(LARGE[:100])
        async with await anyio.open_file(tmp_path / "fox.gif", "rb") as file:
            request = KontextRequest("edit", input_images=file)
            with pytest.raises(InvalidRequest, match="not for a price"):
                await free.estimate(request)
            await free.submit(request)


async def test_the_emulator_sees_the_picture(session: KontextSession, emulator: Emulator, tmp_path: Path) -> None:
    path = tmp_path / "fox.png"
    Image.effect_noise((900, 700), 80).save(path)
    with Image.open(path) as picture:
        outcomes = await session.generate_all(
            KontextRequest("edit", input_images=[source]) for source in (path, path.read_bytes(), picture)
        )
    assert [outcome.error for outcome in outcomes] == [None] * 3
    assert emulator.ledger.billed == 3
