"""The paths of saved images: what cannot be used is refused before anything is downloaded."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest
from files_support import GIF, JPEG, PNG, RawFiles, download_session, raw_files, reply

from kontext_async import DownloadFailed, GeneratedImage, KontextSession

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.fixture
async def session() -> AsyncIterator[KontextSession]:
    async with download_session() as running:
        yield running


@pytest.fixture
async def files() -> AsyncIterator[RawFiles]:
    async with raw_files(reply(PNG)) as running:
        yield running


async def catch_refusal(session: KontextSession, files: RawFiles, path: Path) -> DownloadFailed:
    """Return the error of a path that is refused before a request is sent."""
    image = GeneratedImage(url=files.image.url, task_id="t-1")
    with pytest.raises(DownloadFailed) as caught:
        await session.save(image, path)
    assert not files.requests
    assert caught.value.task_id == "t-1"
    assert caught.value.may_be_charged
    assert not caught.value.retryable
    return caught.value


NAMES = {
    "longer than any name": "x" * 5000,
    "longer with its extension": "x" * 253,
    "longer in bytes": "🦊" * 64,
    "a NUL": "fox\0.png",
    "a lone surrogate": "fox\ud800.png",
    "a folder with a long name": "x" * 300 + "/fox.png",
    "a path of too many folders": "folder/" * 1000 + "fox.png",
}


@pytest.mark.parametrize("name", NAMES)
async def test_an_impossible_name_is_refused(
    name: str, session: KontextSession, files: RawFiles, tmp_path: Path
) -> None:
    error = await catch_refusal(session, files, tmp_path / NAMES[name])
    assert "the file cannot be written" in error.reason
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["🦊" * 60 + ".png", "x" * 251 + ".png", "é" * 125 + ".jpg", "x" * 251, "-\udcff.png"])
async def test_a_name_of_as_many_bytes_as_the_file_system_allows_is_saved(
    name: str, session: KontextSession, files: RawFiles, tmp_path: Path
) -> None:
    path = await session.save(files.image, tmp_path / name)
    assert path.read_bytes() == PNG
    assert list(tmp_path.iterdir()) == [path]
    assert path.suffix == ".png"


class TestWhatIsNotARegularFile:
    async def test_a_named_pipe_is_refused(self, session: KontextSession, files: RawFiles, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "fox.png")
        for name in ("fox.png", "link.png"):
            if name == "link.png":
                (tmp_path / name).symlink_to("fox.png")
            error = await catch_refusal(session, files, tmp_path / name)
            assert error.reason == "the file cannot be written: it is a named pipe, which is not replaced by a file"
        assert (tmp_path / "fox.png").is_fifo()
        assert (tmp_path / "link.png").is_symlink()

    async def test_a_socket_is_refused(self, session: KontextSession, files: RawFiles, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(str(tmp_path / "fox.png"))
            error = await catch_refusal(session, files, tmp_path / "fox.png")
            assert "a socket" in error.reason

    @pytest.mark.parametrize("path", ["/dev/null", "/dev/full"])
    async def test_a_device_is_refused(
        self, path: str, session: KontextSession, files: RawFiles, tmp_path: Path
    ) -> None:
        (tmp_path / "fox.png").symlink_to(path)
        for each in (type(tmp_path)(path), tmp_path / "fox.png"):
            error = await catch_refusal(session, files, each)
            assert "a device" in error.reason

    async def test_a_directory_with_the_name_of_the_file_is_refused(
        self, session: KontextSession, files: RawFiles, tmp_path: Path
    ) -> None:
        (tmp_path / "fox.jpg").mkdir()
        error = await catch_refusal(session, files, tmp_path / "fox")
        assert "a directory" in error.reason

    async def test_what_stands_at_the_adapted_name_is_not_replaced(
        self, session: KontextSession, files: RawFiles, tmp_path: Path
    ) -> None:
        os.mkfifo(tmp_path / "fox.png")
        with pytest.raises(DownloadFailed, match="a named pipe"):
            await session.save(files.image, tmp_path / "fox.jpg")
        assert [path.name for path in tmp_path.iterdir()] == ["fox.png"]


class TestASymbolicLink:
    async def test_to_a_file_is_replaced_and_the_file_stays(
        self, session: KontextSession, files: RawFiles, tmp_path: Path
    ) -> None:
        (tmp_path / "other.txt").write_text("precious")
        (tmp_path / "fox.png").symlink_to("other.txt")
        path = await session.save(files.image, tmp_path / "fox.png")
        assert path == tmp_path / "fox.png"
        assert not path.is_symlink()
        assert path.read_bytes() == PNG
        assert (tmp_path / "other.txt").read_text() == "precious"

    async def test_that_leads_nowhere_is_replaced(
        self, session: KontextSession, files: RawFiles, tmp_path: Path
    ) -> None:
        (tmp_path / "fox.png").symlink_to("gone/far.png")
        path = await session.save(files.image, tmp_path / "fox.png")
        assert path.read_bytes() == PNG
        assert [each.name for each in tmp_path.iterdir()] == ["fox.png"]

    async def test_to_a_directory_is_that_directory(
        self, session: KontextSession, files: RawFiles, tmp_path: Path
    ) -> None:
        (tmp_path / "folder").mkdir()
        (tmp_path / "link").symlink_to("folder")
        assert await session.save(files.image, tmp_path / "link") == tmp_path / "link" / "image.png"
        assert (tmp_path / "folder" / "image.png").read_bytes() == PNG


async def test_the_extension_of_an_unusual_format_is_replaced_too(session: KontextSession, tmp_path: Path) -> None:
    async with raw_files(reply(JPEG), reply(GIF)) as files:
        assert await session.save(files.image, tmp_path / "fox.avif") == tmp_path / "fox.jpg"
        assert await session.save(files.image, tmp_path / "fox.HEIC") == tmp_path / "fox.gif"
