"""Images in broken framing, with more or less after their end, and in formats that were not requested."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
from files_support import GIF, JPEG, PNG, WEBP, Reply, chunked, download_session, encode_image, raw_files, reply
from session_support import events_of

from kontext_async import DownloadFailed, Timeouts
from kontext_async.engine import fetch, sinks
from kontext_async.events import Downloaded
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kontext_async.events import Event

pytestmark = pytest.mark.anyio

WHOLE = {"jpeg": JPEG, "png": PNG, "gif": GIF, "webp": WEBP}
AVIF = (
    b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf"
    + (12 + 40).to_bytes(4, "big")
    + b"meta"
    + bytes(44)
    + (8 + 500).to_bytes(4, "big")
    + b"mdat"
    + bytes(500)
)
BMP = encode_image("BMP")
TIFF = encode_image("TIFF")
TRAILER = bytes(range(256)) * 40


def names_of(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


BROKEN: dict[str, Callable[[bytes], Reply]] = {
    "one byte too long": lambda data: reply(data, length=len(data) + 1),
    "much too long": lambda data: reply(data, length=2 * len(data)),
    "no last chunk": lambda data: chunked(data, is_ended=False),
}
SOUND: dict[str, Callable[[bytes], Reply]] = {
    "chunked": chunked,
    "until the connection closes": lambda data: reply(data, length=None),
}


class TestACompleteImageInBrokenFraming:
    @pytest.mark.parametrize("framing", BROKEN)
    @pytest.mark.parametrize("kind", WHOLE)
    async def test_is_taken_at_once(self, kind: str, framing: str, tmp_path: Path) -> None:
        data = WHOLE[kind]
        async with raw_files(BROKEN[framing](data)) as files, download_session() as session:
            assert await session.read(files.image) == data
            path = await session.save(files.image, tmp_path / "fox")
            assert path.read_bytes() == data
        assert len(files.requests) == 2

    @pytest.mark.parametrize("cut", [1, 2, 500])
    @pytest.mark.parametrize("kind", WHOLE)
    async def test_is_not_seen_in_a_truncated_one(self, kind: str, cut: int, tmp_path: Path) -> None:
        data = WHOLE[kind]
        broken = reply(data[:-cut], length=len(data))
        async with raw_files(broken) as files, download_session() as session:
            with pytest.raises(DownloadFailed):
                await session.save(files.image, tmp_path / "fox")
        assert not names_of(tmp_path)

    async def test_is_not_seen_in_the_thumbnail_of_a_truncated_one(self) -> None:
        thumbnail = b"\xff\xe1" + (len(JPEG) + 2).to_bytes(2, "big") + JPEG
        data = JPEG[:2] + thumbnail + JPEG[2:]
        cut = len(thumbnail) + 100
        async with (
            raw_files(reply(data[:cut], length=len(data)), reply(data)) as files,
            download_session() as session,
        ):
            assert await session.read(files.image) == data
        assert len(files.requests) == 2

    @pytest.mark.parametrize("kind", ["jpeg", "png", "gif"])
    async def test_is_taken_although_the_server_keeps_the_connection(
        self, kind: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(fetch, "GRACE", 0.05)
        data = WHOLE[kind]
        replies = reply(data, length=len(data) + 1, stalls=True), chunked(data, is_ended=False, stalls=True)
        async with raw_files(*replies) as files, download_session() as session:
            assert [await session.read(files.image) for _ in replies] == [data, data]
        assert len(files.requests) == 2

    async def test_is_taken_at_the_deadline(self) -> None:
        settings = attrs.evolve(FAST, timeouts=Timeouts(download=0.2))
        async with (
            raw_files(reply(WEBP, length=len(WEBP) + 1, stalls=True)) as files,
            download_session(settings) as session,
        ):
            assert await session.read(files.image) == WEBP

    async def test_is_taken_if_it_arrived_while_the_disk_was_busy(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The failure of the connection must not discard the bytes that came before it and were not read yet."""
        monkeypatch.setattr(sinks, "FLUSH_AT", 1)
        data = encode_image("PNG", 400)
        async with raw_files(reply(data, length=len(data) + 1)) as files, download_session() as session:
            path = await session.save(files.image, tmp_path / "fox.png")
        assert path.read_bytes() == data
        assert len(files.requests) == 1


class TestAnAnnouncedLengthThatIsKept:
    @pytest.mark.parametrize("kind", WHOLE)
    async def test_bytes_after_the_end_of_the_image_are_kept(self, kind: str) -> None:
        data = WHOLE[kind] + TRAILER
        async with raw_files(reply(data)) as files, download_session() as session:
            assert await session.read(files.image) == data
        assert len(files.requests) == 1

    async def test_an_image_without_an_end_counts_if_it_comes_so_twice(self, tmp_path: Path) -> None:
        data = JPEG[:-2]
        seen: list[Event] = []
        async with raw_files(reply(data)) as files, download_session() as session:
            session.subscribe(seen.append)
            path = await session.save(files.image, tmp_path)
        assert path.read_bytes() == data
        assert len(files.requests) == 2
        (event,) = events_of(Downloaded, seen)
        assert "no end" in str(event.note)

    async def test_a_copy_that_was_truncated_once_is_not_taken(self) -> None:
        replies = reply(PNG[:1000]), reply(PNG[:900]), reply(PNG)
        async with raw_files(*replies) as files, download_session() as session:
            assert await session.read(files.image) == PNG


class TestWithoutAnAnnouncedLength:
    @pytest.mark.parametrize("framing", SOUND)
    @pytest.mark.parametrize("trailer", [b"", TRAILER], ids=["", "trailer"])
    @pytest.mark.parametrize("kind", WHOLE)
    async def test_a_complete_image_is_taken(self, kind: str, trailer: bytes, framing: str) -> None:
        data = WHOLE[kind] + trailer
        async with raw_files(SOUND[framing](data)) as files, download_session() as session:
            assert await session.read(files.image) == data

    @pytest.mark.parametrize("framing", SOUND)
    @pytest.mark.parametrize("kind", WHOLE)
    async def test_a_truncated_image_is_refused(self, kind: str, framing: str) -> None:
        data = WHOLE[kind]
        async with raw_files(SOUND[framing](data[: len(data) // 2])) as files, download_session() as session:
            with pytest.raises(DownloadFailed, match="truncated"):
                await session.read(files.image)


class TestAFormatThatWasNotRequested:
    async def test_only_the_expected_formats_are_requested(self) -> None:
        async with raw_files(reply(JPEG)) as files, download_session() as session:
            await session.read(files.image)
        (accept,) = files.requested("accept")
        types = [each.partition(";")[0].strip() for each in str(accept).split(",")]
        assert types == ["image/jpeg", "image/png", "image/webp", "image/gif"]

    @pytest.mark.parametrize(
        ("data", "name", "kind"),
        [
            (AVIF, "fox.avif", "an AVIF"),
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic\0\0\0\x0cmeta1234\0\0\0\x10mdat12345678", "fox.heic", "a HEIC"),
            (b"\xff\x0a" + bytes(100), "fox.jxl", "a JPEG XL"),
            (BMP, "fox.bmp", "a BMP"),
            (TIFF, "fox.tiff", "a TIFF"),
        ],
        ids=["avif", "heic", "jxl", "bmp", "tiff"],
    )
    @pytest.mark.parametrize("framing", [reply, chunked])
    async def test_is_saved_with_its_own_extension_and_reported(
        self, data: bytes, name: str, kind: str, framing: Callable[[bytes], Reply], tmp_path: Path
    ) -> None:
        seen: list[Event] = []
        async with raw_files(framing(data)) as files, download_session() as session:
            session.subscribe(seen.append)
            path = await session.save(files.image, tmp_path / "fox.jpg")
        assert path == tmp_path / name
        assert path.read_bytes() == data
        assert len(files.requests) == 1
        (event,) = events_of(Downloaded, seen)
        assert event.note == f"the server sent {kind}, although JPEG, PNG, WebP or GIF was requested"

    async def test_a_usual_format_has_no_note(self) -> None:
        seen: list[Event] = []
        async with raw_files(reply(GIF)) as files, download_session() as session:
            session.subscribe(seen.append)
            await session.read(files.image)
        assert [event.note for event in events_of(Downloaded, seen)] == [None]

    async def test_a_server_that_has_no_expected_format_may_send_any(self) -> None:
        async with raw_files(reply(status=406), reply(AVIF)) as files, download_session() as session:
            assert await session.read(files.image) == AVIF
        assert files.requested("accept")[-1] == "*/*"

    async def test_a_server_that_accepts_nothing_is_not_tried_again(self) -> None:
        async with raw_files(reply(status=406)) as files, download_session() as session:
            with pytest.raises(DownloadFailed, match="406"):
                await session.read(files.image)
        assert len(files.requests) == 2

    @pytest.mark.parametrize("text", [b"BMW is closed today, come back", b"<html></html>", b"{}"])
    async def test_a_text_is_no_image(self, text: bytes) -> None:
        async with raw_files(reply(text)) as files, download_session() as session:
            with pytest.raises(DownloadFailed, match="not an image"):
                await session.read(files.image)
