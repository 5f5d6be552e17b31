"""`KontextSession.save`: a path for an image, a list of paths for a generation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from session_support import decode_format

from kontext_async import DownloadFailed, KontextSession, SessionClosed
from kontext_async.emulator import Emulator, Fault, FaultKind
from kontext_async.events import Downloaded, Event

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio


@pytest.fixture
def several_images(emulator: Emulator) -> None:
    """Every task has three images."""
    emulator.faults.set_rate(Fault(kind=FaultKind.SEVERAL_URLS, on=["status"]), 1)


async def test_an_image_is_saved_to_one_path(session: KontextSession, tmp_path: Path) -> None:
    fox = await session.generate("a fox")
    path = await session.save(fox.images[0], tmp_path / "fox.jpg")
    assert path == tmp_path / "fox.jpg"
    assert decode_format(path.read_bytes()) == "JPEG"


async def test_a_generation_of_one_image_is_saved_to_a_list_of_one_path(
    session: KontextSession, tmp_path: Path
) -> None:
    fox = await session.generate("a fox")
    assert await session.save(fox, tmp_path / "fox.jpg") == [tmp_path / "fox.jpg"]
    assert await session.save(fox, tmp_path) == [tmp_path / f"{fox.task_id}.jpg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(["fox.jpg", f"{fox.task_id}.jpg"])


@pytest.mark.usefixtures("several_images")
async def test_the_images_of_a_generation_are_numbered_in_order(session: KontextSession, tmp_path: Path) -> None:
    fox = await session.generate("three foxes")
    assert len(fox.images) == 3
    paths = await session.save(fox, tmp_path / "fox.jpg")
    assert paths == [tmp_path / f"fox-{n}.jpg" for n in (1, 2, 3)]
    assert [path.read_bytes() for path in paths] == [await session.read(image) for image in fox.images]
    assert await session.save(fox, tmp_path) == [tmp_path / f"{fox.task_id}-{n}.jpg" for n in (1, 2, 3)]


@pytest.mark.usefixtures("several_images")
async def test_one_image_of_several_keeps_the_given_name(session: KontextSession, tmp_path: Path) -> None:
    fox = await session.generate("three foxes")
    assert await session.save(fox.images[1], tmp_path / "second.jpg") == tmp_path / "second.jpg"


async def test_a_path_may_be_text_and_takes_the_extension_of_the_image(session: KontextSession, tmp_path: Path) -> None:
    fox = await session.generate("a fox", output_format="png")
    assert await session.save(fox, str(tmp_path / "fox.jpg")) == [tmp_path / "fox.png"]
    assert await session.save(fox.images[0], str(tmp_path / "fox")) == tmp_path / "fox.png"


async def test_a_durable_file_is_saved_to_the_same_path(session: KontextSession, tmp_path: Path) -> None:
    fox = await session.generate("a fox")
    assert await session.save(fox, tmp_path / "fox.jpg", durable=True) == [tmp_path / "fox.jpg"]


async def test_every_saved_image_is_an_event(session: KontextSession, events: list[Event], tmp_path: Path) -> None:
    fox = await session.generate("a fox")
    (path,) = await session.save(fox, tmp_path / "fox.jpg")
    await session.read(fox.images[0])
    saved, read = [event for event in events if isinstance(event, Downloaded)]
    assert saved.path == path
    assert read.path is None
    assert saved.size == read.size == path.stat().st_size
    assert session.statistics().downloaded == 2


async def test_a_failed_save_leaves_no_file(session: KontextSession, emulator: Emulator, tmp_path: Path) -> None:
    fox = await session.generate("a fox")
    emulator.faults.set_rate(Fault(kind=FaultKind.EMPTY_FILE, on=["download"]), 1)
    with pytest.raises(DownloadFailed):
        await session.save(fox, tmp_path / "fox.jpg")
    assert not list(tmp_path.iterdir())


async def test_a_closed_session_saves_nothing_and_names_the_task(
    session: KontextSession, emulator: Emulator, tmp_path: Path
) -> None:
    fox = await session.generate("a fox")
    await session.aclose()
    seen = len(emulator.requests)
    for use in (session.save(fox, tmp_path), session.save(fox.images[0], tmp_path), session.read(fox.images[0])):
        with pytest.raises(SessionClosed) as closed:
            await use
        assert (closed.value.task_id, closed.value.may_be_charged) == (fox.task_id, True)
        assert closed.value.reference == f"vtrix:{fox.task_id}"
    assert len(emulator.requests) == seen
    assert not list(tmp_path.iterdir())
