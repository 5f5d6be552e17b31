"""Input images of all kinds through a session to the emulator: bad ones are refused and not billed."""

from __future__ import annotations

import asyncio
import io
import os
import zipfile
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from PIL import Image
from session_support import count_creates

from kontext_async import InvalidRequest, KontextSession
from kontext_async.images import files

if TYPE_CHECKING:
    from pathlib import Path

    from kontext_async.emulator import Emulator

pytestmark = pytest.mark.anyio


def make_png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40), "navy").save(buffer, "PNG")
    return buffer.getvalue()


PNG = make_png()


class OnlyRead:
    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return tmp_path / "pipe"


async def test_every_new_kind_of_source_is_sent_and_billed_once(
    session: KontextSession, emulator: Emulator, tmp_path: Path
) -> None:
    path = tmp_path / "a fox.png"
    path.write_bytes(PNG)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("fox.png", PNG)
    sources: list[Any] = [path.as_uri(), OnlyRead(PNG), zipfile.Path(tmp_path / "a.zip", "fox.png")]
    generation = await session.generate("edit", input_images=sources)
    assert generation.images
    assert count_creates(emulator) == 1


async def test_a_pipe_without_a_writer_is_refused_and_the_session_continues(
    session: KontextSession, emulator: Emulator, pipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "WRITER_TIMEOUT", 0.01)
    with pytest.raises(InvalidRequest, match="no process writes to this pipe"):
        await session.generate("edit", input_images=[pipe])
    assert count_creates(emulator) == 0
    assert (await session.generate("edit", input_images=PNG)).images


async def test_a_caller_that_waits_for_a_pipe_can_be_cancelled(session: KontextSession, pipe: Path) -> None:
    submitting = asyncio.create_task(session.submit("edit", input_images=[pipe]))
    await asyncio.sleep(0)
    submitting.cancel()
    with anyio.fail_after(2), pytest.raises(asyncio.CancelledError):
        await submitting
    writer = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)  # ends the thread, if it has begun to read
    os.write(writer, b"no image")
    os.close(writer)
    assert session.statistics().in_flight == 0


@pytest.mark.parametrize(
    "source",
    ["/dev/zero", "/", "http://a..b/x.png?sig=hush", "https://user:hush@host/x.png", "file://host/x.png", "~nobody/x"],
)
async def test_a_bad_source_is_refused_before_a_byte_is_sent(
    session: KontextSession, emulator: Emulator, source: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        await session.generate("edit", input_images=[PNG, source])
    assert caught.value.field == "input_images[1]"
    assert "hush" not in str(caught.value)
    assert not caught.value.may_be_charged
    assert count_creates(emulator) == 0


async def test_a_reader_that_cannot_seek_is_part_of_one_request_only(
    session: KontextSession, emulator: Emulator
) -> None:
    reader = OnlyRead(PNG)
    outcomes = [
        outcome
        async for outcome in session.generate_many(
            [{"prompt": "edit", "input_images": [reader]}, {"prompt": "again", "input_images": [reader]}]
        )
    ]
    errors = [str(outcome.error) for outcome in outcomes if outcome.error]
    assert len(errors) == 1
    assert "is read only once" in errors[0]
    assert count_creates(emulator) == 1
