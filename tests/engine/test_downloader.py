"""Downloads from the emulator: streamed, resumed, verified, refreshed, bounded."""

from __future__ import annotations

import asyncio
import resource
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from session_support import count_downloads, decode_format, events_of, new_session, raw_server

from kontext_async import DownloadFailed, GeneratedImage, KontextSession, Limits, Timeouts
from kontext_async.emulator import Emulator, Fault, FaultKind
from kontext_async.engine import sinks
from kontext_async.engine.image_paths import adapt_extension
from kontext_async.events import Event, StatusReceived
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.fixture
def emulator_options() -> dict[str, Any]:
    return {"service_time": 0.0, "pixels": 256 * 256}


@pytest.fixture
async def image(session: KontextSession) -> GeneratedImage:
    return (await session.generate("a red fox", seed=1)).images[0]


async def test_read_and_save_return_the_same_bytes(
    session: KontextSession, image: GeneratedImage, tmp_path: Path
) -> None:
    data = await session.read(image)
    assert decode_format(data) == "JPEG"
    path = await session.save(image, tmp_path / "fox.jpg")
    assert path.read_bytes() == data
    assert sorted(tmp_path.iterdir()) == [path]


async def test_a_file_in_a_directory_is_named_after_the_task(
    session: KontextSession, image: GeneratedImage, tmp_path: Path
) -> None:
    assert await session.save(image, tmp_path) == tmp_path / f"{image.task_id}.jpg"
    odd = attrs.evolve(image, task_id="../../etc/passwd")
    assert await session.save(odd, tmp_path) == tmp_path / "______etc_passwd.jpg"


async def test_an_existing_file_is_replaced(session: KontextSession, image: GeneratedImage, tmp_path: Path) -> None:
    (tmp_path / "fox.jpg").write_text("old")
    path = await session.save(image, str(tmp_path / "fox.jpg"))
    assert decode_format(path.read_bytes()) == "JPEG"


async def test_a_saved_file_has_the_mode_of_the_umask(
    session: KontextSession, image: GeneratedImage, tmp_path: Path
) -> None:
    (tmp_path / "plain").write_text("")
    path = await session.save(image, tmp_path / "fox.jpg")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("fox.jpg", "jpeg", "fox.jpg"),
        ("fox.JPEG", "jpeg", "fox.JPEG"),
        ("fox.jpg", "png", "fox.png"),
        ("fox.png", "jpeg", "fox.jpg"),
        ("fox", "png", "fox.png"),
        ("fox.v2", "webp", "fox.v2.webp"),
        ("fox.gif", "gif", "fox.gif"),
    ],
)
def test_the_extension_is_adapted_to_the_format(name: str, kind: str, expected: str, tmp_path: Path) -> None:
    assert adapt_extension(tmp_path / name, kind) == tmp_path / expected


TRANSIENT = [
    FaultKind.CUT_HALFWAY,
    Fault(kind=FaultKind.CUT_HALFWAY, ranges=False),
    FaultKind.SHORT_BODY,
    FaultKind.EMPTY_FILE,
    FaultKind.TRUNCATED_FILE,
    FaultKind.HTML_PAGE,
    FaultKind.REDIRECT,
    FaultKind.URL_EXPIRED,
    Fault(kind=FaultKind.URL_EXPIRED, status=410),
    FaultKind.NOT_FOUND,
    Fault(kind=FaultKind.HTTP_STATUS, on=["download"], status=500),
    Fault(kind=FaultKind.RATE_LIMITED, on=["download"], retry_after=0),
    Fault(kind=FaultKind.TRICKLE, seconds=0.05),
]


@pytest.mark.parametrize("fault", TRANSIENT, ids=str)
async def test_a_transient_fault_is_retried(
    session: KontextSession, emulator: Emulator, image: GeneratedImage, fault: Fault | FaultKind, tmp_path: Path
) -> None:
    data = await session.read(image)
    for target in (None, tmp_path / "fox.jpg"):
        emulator.faults.script("download", [fault])
        if target:
            assert (await session.save(image, target)).read_bytes() == data
        else:
            assert await session.read(image) == data
        assert not emulator.faults.waiting("download")
    assert [path.name for path in tmp_path.iterdir()] == ["fox.jpg"]


async def test_an_interrupted_download_is_resumed_where_it_stopped(
    session: KontextSession, emulator: Emulator, image: GeneratedImage
) -> None:
    data = await session.read(image)
    emulator.faults.script("download", [FaultKind.CUT_HALFWAY])
    assert await session.read(image) == data
    first, second = [record for record in emulator.requests if record.origin == "files"][-2:]
    assert "Range" not in first.headers
    assert 0 < int(second.headers["Range"].removeprefix("bytes=").removesuffix("-")) < len(data)
    assert second.headers["If-Range"]


async def test_a_server_without_ranges_sends_the_whole_image_again(
    session: KontextSession, emulator: Emulator, image: GeneratedImage
) -> None:
    data = await session.read(image)
    emulator.faults.script("download", [FaultKind.CUT_HALFWAY, FaultKind.NO_RANGES])
    assert await session.read(image) == data


@pytest.mark.parametrize("kind", [FaultKind.EMPTY_FILE, FaultKind.HTML_PAGE, FaultKind.CUT_HALFWAY])
async def test_a_permanent_fault_fails_the_download(
    session: KontextSession, emulator: Emulator, image: GeneratedImage, kind: FaultKind, tmp_path: Path
) -> None:
    emulator.faults.set_rate(Fault(kind=kind, on=["download"]), 1)
    with pytest.raises(DownloadFailed) as caught:
        await session.save(image, tmp_path / "fox.jpg")
    error = caught.value
    assert error.task_id == image.task_id
    assert error.may_be_charged
    assert "?" not in error.url
    assert "signature" not in str(error) + repr(error) + repr(image)
    assert not list(tmp_path.iterdir())
    assert count_downloads(emulator) >= FAST.retries.attempts


class TestAnExpiredUrl:
    @pytest.fixture
    def emulator_options(self) -> dict[str, Any]:
        self.now = 1_800_000_000.0
        return {"service_time": 0.0, "pixels": 4096, "url_lifetime": 60.0, "clock": lambda: self.now}

    async def test_one_status_request_returns_a_fresh_url(
        self, session: KontextSession, image: GeneratedImage, events: list[Event]
    ) -> None:
        self.now += 61
        assert decode_format(await session.read(image)) == "JPEG"
        assert len(events_of(StatusReceived, events)) == 1

    async def test_an_image_without_a_task_has_no_fresh_url(
        self, session: KontextSession, image: GeneratedImage
    ) -> None:
        self.now += 61
        with pytest.raises(DownloadFailed, match="its task is unknown") as caught:
            await session.read(attrs.evolve(image, task_id=None))
        assert caught.value.status == 403

    async def test_an_unknown_task_has_no_fresh_url(self, session: KontextSession, image: GeneratedImage) -> None:
        self.now += 61
        with pytest.raises(DownloadFailed, match="there is no fresh URL"):
            await session.read(attrs.evolve(image, task_id="gone"))

    async def test_a_fresh_url_is_requested_once(
        self, session: KontextSession, emulator: Emulator, image: GeneratedImage, events: list[Event]
    ) -> None:
        emulator.faults.set_rate(FaultKind.URL_EXPIRED, 1)
        with pytest.raises(DownloadFailed):
            await session.read(image)
        assert len(events_of(StatusReceived, events)) == 1
        assert count_downloads(emulator) == 2

    async def test_the_same_image_is_found_among_several(self, session: KontextSession, emulator: Emulator) -> None:
        emulator.faults.set_rate(Fault(kind=FaultKind.SEVERAL_URLS, on=["create", "status"]), 1)
        several = await session.generate("three")
        before = [await session.read(each) for each in several.images]
        self.now += 61
        assert [await session.read(each) for each in several.images] == before
        unnamed = [attrs.evolve(each, job_id=None) for each in several.images]
        self.now += 61
        assert [await session.read(each) for each in unnamed] == before
        elsewhere = attrs.evolve(unnamed[0], url=f"{emulator.files_url}/results/other.jpg")
        with pytest.raises(DownloadFailed, match="its task no longer lists the image"):
            await session.read(elsewhere)


async def test_an_image_over_the_size_limit_is_not_downloaded(
    emulator: Emulator, image: GeneratedImage, session: KontextSession
) -> None:
    size = len(await session.read(image))
    for limit in (size, size - 1, 10):
        settings = attrs.evolve(FAST, limits=Limits(max_download_bytes=limit))
        async with new_session(emulator, settings) as bounded:
            if limit >= size:
                assert len(await bounded.read(image)) == size
            else:
                with pytest.raises(DownloadFailed, match=f"larger than {limit} bytes"):
                    await bounded.read(image)


async def test_the_size_limit_holds_without_a_content_length() -> None:
    async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n\xff\xd8\xff")
        try:
            while True:
                writer.write(bytes(65536))
                await writer.drain()
        except ConnectionError:
            writer.close()

    settings = attrs.evolve(FAST, limits=Limits(max_download_bytes=1_000_000))
    async with (
        raw_server(endless) as address,
        KontextSession("key", base_url="http://127.0.0.1:9", settings=settings) as bounded,
    ):
        with pytest.raises(DownloadFailed, match="larger than 1000000 bytes"):
            await bounded.read(GeneratedImage(url=f"{address}/x.jpg"))


async def test_a_download_past_its_deadline_fails(emulator: Emulator, image: GeneratedImage, tmp_path: Path) -> None:
    settings = attrs.evolve(FAST, timeouts=Timeouts(download=0.1))
    emulator.faults.script("download", [FaultKind.STALL_HALFWAY])
    async with new_session(emulator, settings) as session:
        with pytest.raises(DownloadFailed, match=r"not finished within 0\.1 s"):
            await session.save(image, tmp_path / "fox.jpg")
    assert not list(tmp_path.iterdir())


async def test_a_stalled_download_is_retried(emulator: Emulator, image: GeneratedImage) -> None:
    settings = attrs.evolve(FAST, timeouts=Timeouts(status=0.1))
    emulator.faults.script("download", [FaultKind.STALL_HALFWAY, FaultKind.STALL])
    async with new_session(emulator, settings) as session:
        assert decode_format(await session.read(image)) == "JPEG"


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://127.0.0.1/x", "/results/x.jpg", "http://", "http://[::1"])
async def test_an_unusable_url_fails_the_download(session: KontextSession, url: str) -> None:
    with pytest.raises(DownloadFailed):
        await session.read(GeneratedImage(url=url))


async def test_an_unwritable_path_fails_the_download(
    session: KontextSession, image: GeneratedImage, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadFailed, match="cannot be written") as caught:
        await session.save(image, tmp_path / "file" / "fox.jpg")
    assert isinstance(caught.value.__cause__, OSError)


async def test_a_full_disk_fails_the_download_and_leaves_no_file(
    session: KontextSession, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "FLUSH_AT", 1)
    image = (await session.generate("a fox", output_format="png")).images[0]
    size = len(await session.read(image))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size // 2, hard))
    try:
        with pytest.raises(DownloadFailed, match="cannot be written") as caught:
            await session.save(image, tmp_path / "fox.png")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.task_id == image.task_id
    assert caught.value.may_be_charged
    assert caught.value.retryable
    assert not list(tmp_path.iterdir())
    assert (await session.save(image, tmp_path / "fox.png")).stat().st_size == size
    assert emulator.ledger.billed == 1


async def test_a_large_image_is_written_while_it_arrives(
    session: KontextSession, emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sinks, "FLUSH_AT", 1000)
    image = (await session.generate("a fox", output_format="png")).images[0]
    data = await session.read(image)
    emulator.faults.script("download", [FaultKind.TRUNCATED_FILE, FaultKind.CUT_HALFWAY])
    path = await session.save(image, tmp_path / "fox.png")
    assert path.read_bytes() == data


async def test_many_images_are_saved_at_once(session: KontextSession, image: GeneratedImage, tmp_path: Path) -> None:
    paths = await asyncio.gather(*(session.save(image, tmp_path / f"{n}.jpg") for n in range(200)))
    assert len({path.read_bytes() for path in paths}) == 1
    assert session.statistics().downloaded == 200
