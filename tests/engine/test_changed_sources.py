"""Input images that change between their check and the end of their upload: the request fails, and is not billed."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest
from session_support import until
from upload_support import LARGE, UploadGateway, input_image_of, needs_descriptors, upload_session, write_large

from kontext_async import ImageSource, InvalidRequest, SubmissionUncertain
from kontext_async.events import Event, Failed, Submitting
from kontext_async.images.contents import FileContent

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = [pytest.mark.anyio, needs_descriptors]


@pytest.fixture
def gateway() -> UploadGateway:
    return UploadGateway()


async def submit_and_change(
    gateway: UploadGateway, source: ImageSource, change: Callable[[], object]
) -> tuple[InvalidRequest, list[Event]]:
    """Submit a request, change its image in the middle of the upload, and return the error and the events."""
    events: list[Event] = []
    async with upload_session(gateway) as session:
        session.subscribe(events.append)
        submitting = asyncio.create_task(session.submit("edit", input_images=[source]))
        await until(lambda: gateway.paused)
        change()
        gateway.resume.set()
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


def overwrite(path: Path) -> None:
    """Overwrite a few bytes near the end of a file."""
    with path.open("r+b") as file:
        file.seek(len(LARGE) - 10)
        file.write(b"changed")


class TestDuringTheUpload:
    async def test_an_overwritten_file_fails_the_request(self, gateway: UploadGateway, tmp_path: Path) -> None:
        path = write_large(tmp_path)
        error, events = await submit_and_change(gateway, path, lambda: overwrite(path))
        assert "it changed while it was being sent" in error.rule
        assert "fox.gif" in error.value
        assert [type(event) for event in events] == [Submitting, Failed]

    async def test_a_changed_file_whose_time_was_set_back_fails_the_request(
        self, gateway: UploadGateway, tmp_path: Path
    ) -> None:
        path = write_large(tmp_path)
        before = path.stat()

        def overwrite_and_set_back() -> None:
            overwrite(path)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))

        error, _ = await submit_and_change(gateway, path, overwrite_and_set_back)
        assert "it changed while it was being sent" in error.rule

    async def test_a_truncated_file_fails_the_request(self, gateway: UploadGateway, tmp_path: Path) -> None:
        path = write_large(tmp_path)
        error, _ = await submit_and_change(gateway, str(path), lambda: os.truncate(path, 1_000_000))
        assert "it became shorter while it was being sent" in error.rule

    async def test_an_overwritten_bytearray_fails_the_request_and_is_released(self, gateway: UploadGateway) -> None:
        data = bytearray(LARGE)

        def change() -> None:
            data[-10] ^= 1
            with pytest.raises(BufferError):
                data.clear()

        error, _ = await submit_and_change(gateway, data, change)
        assert "it changed while it was being sent" in error.rule
        data.clear()

    async def test_a_read_only_view_of_writable_bytes_is_monitored_too(self, gateway: UploadGateway) -> None:
        data = bytearray(LARGE)
        view = memoryview(data).toreadonly()
        await submit_and_change(gateway, view, lambda: data.__setitem__(-10, data[-10] ^ 1))

    async def test_a_failing_disk_fails_the_request(
        self, gateway: UploadGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = write_large(tmp_path)

        def fail(*_: object) -> bytes:
            raise OSError(5, "Input/output error")

        error, _ = await submit_and_change(gateway, path, lambda: monkeypatch.setattr(FileContent, "read_at", fail))
        assert "Input/output error" in error.rule
        assert isinstance(error.__cause__, OSError)

    async def test_a_file_that_is_unlinked_during_the_upload_is_sent(
        self, gateway: UploadGateway, tmp_path: Path
    ) -> None:
        """The upload reads the open file, so its path does not matter."""
        path = write_large(tmp_path)
        async with upload_session(gateway) as session:
            submitting = asyncio.create_task(session.submit("edit", input_images=[path]))
            await until(lambda: gateway.paused)
            path.unlink()
            gateway.resume.set()
            await submitting
        assert input_image_of(gateway.bodies[0]) == LARGE

    async def test_an_early_response_wins_over_a_changed_source(self, gateway: UploadGateway, tmp_path: Path) -> None:
        """The gateway refused in the middle of the body; that the upload broke off does not matter."""
        path = write_large(tmp_path)
        gateway.responses = [b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"]
        async with upload_session(gateway) as session:
            with pytest.raises(Exception, match="413") as caught:
                await session.submit("edit", input_images=[path])
            assert not isinstance(caught.value, InvalidRequest | SubmissionUncertain)


class TestBetweenTheCheckAndTheFirstByte:
    @pytest.mark.parametrize("way", ["vanished", "replaced", "touched"])
    async def test_a_file_that_changes_before_the_first_byte_fails_the_request(
        self, gateway: UploadGateway, tmp_path: Path, way: str
    ) -> None:
        path = write_large(tmp_path)

        def change(_: Submitting) -> None:
            if way == "vanished":
                path.unlink()
            elif way == "replaced":
                (tmp_path / "new.gif").write_bytes(LARGE)
                (tmp_path / "new.gif").replace(path)
            else:
                os.utime(path, ns=(1, 1))

        gateway.resume.set()
        async with upload_session(gateway) as session:
            session.subscribe(change, Submitting)
            words = "it has vanished since" if way == "vanished" else "it has changed since"
            with pytest.raises(InvalidRequest, match=f"{words} it was checked") as caught:
                await session.submit("edit", input_images=[path])
            assert not caught.value.may_be_charged
            assert session.statistics().submitted == 1
        assert gateway.bodies == []

    async def test_a_file_that_is_renamed_and_back_is_sent(self, gateway: UploadGateway, tmp_path: Path) -> None:
        path = write_large(tmp_path)
        gateway.resume.set()
        async with upload_session(gateway) as session:
            session.subscribe(lambda _: path.rename(tmp_path / "b").rename(path), Submitting)
            await session.submit("edit", input_images=[path])
        assert input_image_of(gateway.bodies[0]) == LARGE
