"""The URLs of images: relative ones, data URIs, unusable ones, and images that are not there yet."""

from __future__ import annotations

import asyncio
import base64
import pickle
from typing import TYPE_CHECKING

import attrs
import pytest
from files_support import JPEG, PNG, Reply, download_session, raw_files, reply
from session_support import count_downloads, raw_server, until

from kontext_async import DownloadFailed, GeneratedImage, KontextSession, Limits, Retries
from kontext_async.emulator import Emulator, Fault, FaultKind
from kontext_async.testing import FAST, ManualClock

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


def image_at(url: str) -> GeneratedImage:
    return GeneratedImage(url=url, task_id="t-1")


URIS = {
    "base64": "data:image/png;base64," + base64.b64encode(PNG).decode(),
    "upper case": "DATA:image/png;BASE64," + base64.b64encode(PNG).decode(),
    "percent-encoded": "data:image/png," + "".join(f"%{byte:02x}" for byte in PNG),
}


class TestADataUri:
    @pytest.mark.parametrize("form", URIS)
    async def test_is_decoded(self, form: str, tmp_path: Path) -> None:
        async with download_session() as session:
            assert await session.read(image_at(URIS[form])) == PNG
            path = await session.save(image_at(URIS[form]), tmp_path / "fox")
        assert path == tmp_path / "fox.png"
        assert path.read_bytes() == PNG

    @pytest.mark.parametrize("form", URIS)
    @pytest.mark.parametrize("limit", [10, len(PNG) - 1])
    async def test_is_bounded(self, form: str, limit: int) -> None:
        settings = attrs.evolve(FAST, limits=Limits(max_download_bytes=limit))
        async with download_session(settings) as session:
            with pytest.raises(DownloadFailed, match=f"larger than {limit} bytes"):
                await session.read(image_at(URIS[form]))

    @pytest.mark.parametrize("uri", ["data:", "data:image/png;base64", "data:image/png;base64,§§§§", "data:,no image"])
    async def test_that_has_no_image_fails_the_download(self, uri: str) -> None:
        async with download_session() as session:
            with pytest.raises(DownloadFailed) as caught:
                await session.read(image_at(uri))
        assert caught.value.task_id == "t-1"
        assert caught.value.url.startswith("<data URI")


class TestARelativeUrl:
    @pytest.mark.parametrize(
        ("url", "target"),
        [
            ("/results/fox.jpg?sig=a%2Fb%2Bc%3D&x=%7E", "/results/fox.jpg?sig=a%2Fb%2Bc%3D&x=%7E"),
            ("results/fox.jpg", "/results/fox.jpg"),
            ("//{host}/fox.jpg", "/fox.jpg"),
            ("  /fox.jpg\n", "/fox.jpg"),
        ],
    )
    async def test_is_resolved_against_the_gateway(self, url: str, target: str) -> None:
        async with (
            raw_files(reply(JPEG)) as files,
            KontextSession("the-secret-key", base_url=f"{files.address}/api", settings=FAST) as session,
        ):
            host = files.address.removeprefix("http://")
            assert await session.read(image_at(url.format(host=host))) == JPEG
        assert [seen for seen, _ in files.requests] == [target]
        assert files.requested("authorization") == [None]


UNUSABLE = [
    "http://a..b/x.png",
    f"http://{'a' * 64}.example/x.png",
    "http://",
    "http:///x.png",
    "https://[::1",
    "http://[::1%25eth0]/x.png",
    "http://127.0.0.1:99999/x.png",
    "http://127.0.0.1:port/x.png",
    "http://\ud800.example/x.png",
    "http://xn--\u2028/x.png",
    "http://.../x.png",
    "ftp://127.0.0.1/x.png",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "",
    "   ",
]


@pytest.mark.parametrize("url", UNUSABLE, ids=ascii)
async def test_an_unusable_url_fails_the_download_at_once(url: str) -> None:
    async with download_session() as session:
        with pytest.raises(DownloadFailed) as caught:
            await session.read(image_at(url))
    assert caught.value.task_id == "t-1"
    assert caught.value.may_be_charged
    assert not caught.value.retryable


@pytest.mark.parametrize("url", [each for each in UNUSABLE if each.strip() and each.isascii()])
async def test_a_redirect_to_an_unusable_url_fails_the_download_at_once(url: str) -> None:
    async with raw_files(reply(status=302, headers={"Location": url})) as files, download_session() as session:
        with pytest.raises(DownloadFailed) as caught:
            await session.read(attrs.evolve(files.image, task_id="t-1"))
    assert caught.value.task_id == "t-1"
    assert not caught.value.retryable
    assert len(files.requests) == 1


async def test_a_redirect_loop_fails_the_download_at_once() -> None:
    async with raw_files(reply(status=302, headers={"Location": "/fox.jpg"})) as files, download_session() as session:
        with pytest.raises(DownloadFailed, match="redirect") as caught:
            await session.read(files.image)
    assert not caught.value.retryable
    assert len(files.requests) <= 6


async def test_a_forbidden_address_fails_the_download_at_once() -> None:
    async with KontextSession("the-secret-key", base_url="http://198.51.100.1", settings=FAST) as session:
        for url in ("http://127.0.0.1/x.png", "http://169.254.169.254/x.png", "http://[::1]/x.png"):
            with pytest.raises(DownloadFailed) as caught:
                await session.read(image_at(url))
            assert caught.value.task_id == "t-1"
            assert not caught.value.retryable


async def test_the_key_is_in_no_part_of_the_error() -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"the-secret-key is no HTTP\r\n\r\n")
        await reader.read(1)
        writer.close()

    async with raw_server(echo) as address, download_session() as session:
        for path in ("/the-secret-key/x.png?sig=the-secret-key", "/x.png"):
            with pytest.raises(DownloadFailed) as caught:
                await session.read(GeneratedImage(url=address + path))
            error = caught.value
            shown = f"{error} {error!r} {error.__cause__!r} {vars(error)} {pickle.dumps(error)!r}"
            assert "the-secret-key" not in shown
            assert "sig=" not in shown


def is_pausing(clock: ManualClock) -> bool:
    """Return True if a download waits for a pause to end; the timer of its deadline does not count."""
    return clock.next_at is not None and clock.next_at < clock.time() + 60


class TestAnImageThatIsNotThereYet:
    @pytest.mark.parametrize("status", [404, 202, 204])
    async def test_is_requested_again_after_a_pause(self, status: int) -> None:
        replies = [reply(status=status)] * 3
        async with raw_files(*replies, reply(JPEG)) as files, download_session() as session:
            assert await session.read(files.image) == JPEG

    @pytest.mark.parametrize("status", [404, 202, 204])
    async def test_fails_the_download_when_the_grace_is_over(self, status: int) -> None:
        clock = ManualClock()
        settings = attrs.evolve(FAST, retries=Retries(not_found_grace=10))
        async with (
            raw_files(reply(status=status)) as files,
            KontextSession("key", base_url="http://127.0.0.1:9", settings=settings, clock=clock) as session,
        ):
            reading = asyncio.ensure_future(session.read(files.image))
            while not reading.done():
                await until(lambda: reading.done() or is_pausing(clock))
                clock.advance(0.5)
            with pytest.raises(DownloadFailed, match=str(status)) as caught:
                await reading
        assert caught.value.status == status
        assert 10 <= clock.time() <= 12
        assert len(files.requests) < 30

    async def test_gets_a_fresh_url_first(self, session: KontextSession, emulator: Emulator) -> None:
        image = (await session.generate("a fox")).image
        emulator.faults.script("download", [FaultKind.NOT_FOUND] * 3)
        assert await session.read(image)
        assert count_downloads(emulator) == 4

    async def test_whose_url_expired_is_not_awaited(self, session: KontextSession, emulator: Emulator) -> None:
        image = (await session.generate("a fox")).image
        emulator.faults.set_rate(Fault(kind=FaultKind.URL_EXPIRED, status=410), 1)
        with pytest.raises(DownloadFailed):
            await session.read(image)
        assert count_downloads(emulator) == 2


def test_a_reply_shows_no_image() -> None:
    assert repr(Reply(PNG)) == "Reply(stalls=False)"
