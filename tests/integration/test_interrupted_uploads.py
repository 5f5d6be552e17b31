"""Uploads that a connection, a refusal, a cancellation or the end of the session interrupts."""

from __future__ import annotations

import asyncio
import io
from typing import TYPE_CHECKING

import anyio
import attrs
import pytest
from session_support import raw_server, until
from upload_support import (
    LARGE,
    TOO_MANY_REQUESTS,
    UploadGateway,
    content_length,
    count_descriptors,
    input_image_of,
    needs_descriptors,
    upload_session,
    write_large,
)

from kontext_async import (
    GatewayUnavailable,
    ImageSource,
    InvalidRequest,
    KontextRequest,
    KontextSession,
    Limits,
    SubmissionUncertain,
    Timeouts,
)
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.anyio, needs_descriptors]


@pytest.fixture
def gateway() -> UploadGateway:
    return UploadGateway()


class TestConnections:
    @pytest.mark.parametrize("ending", [b"", b"Connection: close\r\n"], ids=["open", "closed"])
    @pytest.mark.parametrize("kind", ["bytes", "file", "reader"])
    async def test_an_upload_that_is_throttled_in_its_middle_is_sent_again(
        self, gateway: UploadGateway, tmp_path: Path, ending: bytes, kind: str
    ) -> None:
        path = write_large(tmp_path)
        gateway.responses = [TOO_MANY_REQUESTS % ending] * 2
        gateway.resume.set()
        async with upload_session(gateway) as session, await anyio.open_file(path, "rb") as reader:
            sources: dict[str, ImageSource] = {"bytes": LARGE, "file": path, "reader": reader}
            await session.submit("edit", input_images=[sources[kind]])
            assert session.statistics().submitted == 3
            assert session.statistics().uncertain == 0
        assert input_image_of(gateway.bodies[-1]) == LARGE

    @pytest.mark.parametrize("kind", ["bytes", "file"])
    async def test_an_upload_that_is_cut_in_its_middle_is_sent_again(
        self, gateway: UploadGateway, tmp_path: Path, kind: str
    ) -> None:
        """Half a JSON body is no request, so nothing was accepted."""
        path = write_large(tmp_path)
        gateway.responses = [None, None]
        gateway.resume.set()
        async with upload_session(gateway) as session:
            await session.submit("edit", input_images=[LARGE if kind == "bytes" else path])
            assert session.statistics().submitted == 3
        assert [input_image_of(body) for body in gateway.bodies] == [LARGE]

    async def test_an_upload_that_is_cut_behind_its_last_byte_is_uncertain(self, tmp_path: Path) -> None:
        path = write_large(tmp_path)

        async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readexactly(content_length(await reader.readuntil(b"\r\n\r\n")))
            writer.transport.abort()

        async with (
            raw_server(swallow) as address,
            KontextSession("key", base_url=address, settings=FAST) as session,
        ):
            with pytest.raises(SubmissionUncertain):
                await session.submit("edit", input_images=[path])
            assert session.statistics().submitted == 1

    async def test_a_refused_upload_releases_its_files_and_its_place(
        self, gateway: UploadGateway, tmp_path: Path
    ) -> None:
        path = write_large(tmp_path)
        unavailable = TOO_MANY_REQUESTS.replace(b"429 Too Many Requests", b"503 Service Unavailable")
        gateway.responses += [unavailable % b"Connection: close\r\n"] * 2 * FAST.retries.attempts
        before = count_descriptors()
        async with upload_session(gateway, max_uploads=1) as session:
            for _ in range(2):
                with pytest.raises(GatewayUnavailable):
                    await session.submit("edit", input_images=[path, io.BufferedReader(io.BytesIO(LARGE))])
            assert count_descriptors() == before


class TestCancellation:
    async def test_the_upload_of_a_cancelled_caller_is_completed(self, gateway: UploadGateway, tmp_path: Path) -> None:
        path = write_large(tmp_path)
        async with upload_session(gateway, max_uploads=1) as session:
            submitting = asyncio.create_task(session.submit("edit", input_images=[path]))
            await until(lambda: gateway.paused)
            submitting.cancel()
            gateway.resume.set()
            with pytest.raises(asyncio.CancelledError):
                await submitting
            assert session.statistics().accepted == 1
            assert count_descriptors(of=tmp_path) == 0
            await session.submit("another", input_images=[path])
        assert [input_image_of(body) for body in gateway.bodies] == [LARGE, LARGE]

    async def test_an_upload_keeps_its_source_open_after_the_caller_left(
        self, gateway: UploadGateway, tmp_path: Path
    ) -> None:
        path = write_large(tmp_path)
        settings = attrs.evolve(FAST, limits=Limits(max_uploads=1), timeouts=Timeouts(cancel=0.01))
        async with (
            raw_server(gateway.serve) as address,
            KontextSession("key", base_url=address, settings=settings) as session,
        ):
            submitting = asyncio.create_task(session.submit("edit", input_images=[path]))
            await until(lambda: gateway.paused)
            submitting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await submitting
            assert count_descriptors(of=tmp_path) == 1
            gateway.resume.set()
            await until(lambda: session.statistics().accepted)
            await until(lambda: not count_descriptors(of=tmp_path))
        assert [input_image_of(body) for body in gateway.bodies] == [LARGE]

    async def test_a_caller_that_is_cancelled_while_its_reader_is_read_releases_its_place(
        self, gateway: UploadGateway
    ) -> None:
        class StalledReader:
            def __init__(self) -> None:
                self.given = 0

            async def read(self, size: int = -1) -> bytes:
                if self.given > 1_000_000:
                    await asyncio.Event().wait()
                self.given += size
                return LARGE[:size]

        before = count_descriptors()
        async with upload_session(gateway, max_uploads=1) as session:
            reader = StalledReader()
            request = KontextRequest("edit", input_images=reader)
            submitting = asyncio.create_task(session.submit(request))
            await until(lambda: reader.given > 1_000_000)
            assert count_descriptors() == before + 1
            submitting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await submitting
            assert count_descriptors() == before
            with pytest.raises(InvalidRequest, match="read once"):
                await session.submit(request)
            gateway.resume.set()
            await session.submit("the place is free", input_images=[LARGE])

    async def test_a_caller_that_is_cancelled_while_it_waits_for_a_place_sends_nothing(
        self, gateway: UploadGateway
    ) -> None:
        async with upload_session(gateway, max_uploads=1) as session:
            first = asyncio.create_task(session.submit("edit", input_images=[LARGE]))
            await until(lambda: gateway.paused)
            second = asyncio.create_task(session.submit("edit", input_images=[LARGE]))
            await asyncio.sleep(0)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            gateway.resume.set()
            await first
            await session.submit("edit", input_images=[LARGE])
        assert gateway.begun == 2


async def test_closing_the_session_during_an_upload_is_uncertain_and_closes_its_file(
    gateway: UploadGateway, tmp_path: Path
) -> None:
    path = write_large(tmp_path)
    settings = attrs.evolve(FAST, timeouts=Timeouts(cancel=0.01))
    async with raw_server(gateway.serve) as address:
        async with KontextSession("key", base_url=address, settings=settings) as session:
            submitting = asyncio.create_task(session.submit("edit", input_images=[path]))
            await until(lambda: gateway.paused)
        with pytest.raises(SubmissionUncertain):
            await submitting
        await until(lambda: not count_descriptors(of=tmp_path))
        gateway.resume.set()
