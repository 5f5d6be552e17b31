"""Images that are passed on while they are downloaded, without being stored."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from files_support import GIF, JPEG, PNG, WEBP, chunked, download_session, encode_image, raw_files, reply
from session_support import count_downloads, events_of, new_session, until

from kontext_async import DownloadFailed, SessionClosed
from kontext_async.engine import image_stream
from kontext_async.events import Downloaded

if TYPE_CHECKING:
    from kontext_async import GeneratedImage, KontextSession
    from kontext_async.emulator import Emulator
    from kontext_async.events import Event

pytestmark = pytest.mark.anyio

LARGE = encode_image("PNG", 400)
HALF = len(LARGE) // 2
TAGGED = {"ETag": '"one"'}


async def collect(session: KontextSession, image: GeneratedImage) -> bytes:
    async with session.stream(image) as pieces:
        return b"".join([piece async for piece in pieces])


async def test_the_pieces_are_the_image_that_read_returns(session: KontextSession, events: list[Event]) -> None:
    image = (await session.generate("a red fox")).image
    async with session.stream(image) as pieces:
        assert pieces.media_type == "image/jpeg"
        assert pieces.size is not None
        streamed = b"".join([piece async for piece in pieces])
        assert len(streamed) == pieces.size
    assert streamed == await session.read(image)
    assert [event.size for event in events_of(Downloaded, events)] == [len(streamed)] * 2


@pytest.mark.parametrize(
    ("data", "media_type"), [(JPEG, "image/jpeg"), (PNG, "image/png"), (GIF, "image/gif"), (WEBP, "image/webp")]
)
@pytest.mark.parametrize("is_chunked", [False, True])
async def test_each_format_is_streamed_with_its_media_type(data: bytes, media_type: str, *, is_chunked: bool) -> None:
    response = chunked(data) if is_chunked else reply(data)
    async with raw_files(response) as files, download_session() as session, session.stream(files.image) as pieces:
        assert pieces.media_type == media_type
        assert pieces.size == (None if is_chunked else len(data))
        assert b"".join([piece async for piece in pieces]) == data


async def test_an_interrupted_transfer_is_resumed() -> None:
    begin = reply(LARGE[:HALF], length=len(LARGE), headers=TAGGED)
    shown = {"Content-Range": f"bytes {HALF}-{len(LARGE) - 1}/{len(LARGE)}", **TAGGED}
    rest = reply(LARGE[HALF:], status=206, headers=shown)
    async with raw_files(begin, rest) as files, download_session() as session:
        assert await collect(session, files.image) == LARGE


async def test_a_transfer_that_cannot_be_resumed_ends_with_an_error_and_repeats_no_byte() -> None:
    cut = reply(LARGE[:HALF], length=len(LARGE))
    replies = (cut, reply(LARGE))
    async with raw_files(*replies) as files, download_session() as session, session.stream(files.image) as pieces:
        iterator = aiter(pieces)
        got = await anext(iterator)
        while len(got) < HALF:
            got += await anext(iterator)
        with pytest.raises(DownloadFailed, match="its start was passed on already"):
            await anext(iterator)
    assert got == LARGE[:HALF]


async def test_what_is_no_image_is_never_passed_on() -> None:
    page = reply(b"<html>" + b"x" * 4000)
    async with raw_files(page, page, reply(JPEG)) as files, download_session() as session:
        assert await collect(session, files.image) == JPEG


async def test_an_image_that_is_gone_is_an_error_before_the_first_piece() -> None:
    async with raw_files(*[reply(b"gone", status=410)] * 9) as files, download_session() as session:
        with pytest.raises(DownloadFailed):
            await collect(session, files.image)


async def test_trailing_bytes_of_a_complete_delivery_are_passed_on() -> None:
    data = JPEG + b"trailing" * 1000
    async with raw_files(reply(data)) as files, download_session() as session:
        assert await collect(session, files.image) == data


async def test_a_slow_consumer_stops_the_transfer_at_a_bounded_number_of_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(image_stream, "READ_AHEAD", 1000)
    async with raw_files(reply(LARGE)) as files, download_session() as session:
        async with session.stream(files.image) as pieces:
            sizes = [len(piece) async for piece in pieces]
        assert sum(sizes) == len(LARGE)
        assert max(sizes) < len(LARGE)


async def test_leaving_early_ends_the_download(session: KontextSession, emulator: Emulator) -> None:
    image = (await session.generate("a red fox")).image
    async with session.stream(image) as pieces:
        assert await anext(aiter(pieces))
    assert session._engine._tasks._running == {}
    assert count_downloads(emulator) == 1


async def test_a_consumer_whose_session_closes_gets_an_error(emulator: Emulator) -> None:
    emulator.faults.script("download", ["stall"])
    session = await new_session(emulator).start()
    image = (await session.generate("a red fox")).image
    consumer = asyncio.create_task(collect(session, image))
    await until(lambda: count_downloads(emulator))
    await session.aclose()
    with pytest.raises(SessionClosed) as caught:
        await consumer
    assert (caught.value.task_id, caught.value.may_be_charged) == (image.task_id, True)
    with pytest.raises(SessionClosed) as caught:
        await collect(session, image)
    assert (caught.value.task_id, caught.value.may_be_charged) == (image.task_id, True)
