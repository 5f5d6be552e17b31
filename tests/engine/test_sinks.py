"""The sinks of downloads by themselves: memory, and a temporary file that is renamed at the end."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from kontext_async.engine import sinks
from kontext_async.engine.sinks import FileSink, MemorySink, Sink

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

DATA = bytes(range(256)) * 40


@pytest.fixture(params=["memory", "file"])
async def sink(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Sink]:
    if request.param == "memory":
        yield MemorySink()
        return
    in_file = FileSink(tmp_path, "fox.jpg")
    yield in_file
    await in_file.discard()


class TestHeadAndTail:
    @pytest.mark.parametrize("step", [1, 5, 4095, 4096, 4097, len(DATA)])
    async def test_head_and_tail_do_not_depend_on_the_chunks(self, sink: Sink, step: int) -> None:
        for start in range(0, len(DATA), step):
            await sink.write(DATA[start : start + step])
        assert sink.size == len(DATA)
        assert DATA.startswith(sink.head)
        assert len(sink.head) >= 64
        assert sink.tail == DATA[-4096:]

    async def test_a_short_image_is_its_own_head_and_tail(self, sink: Sink) -> None:
        for chunk in (b"GIF", b"89a"):
            await sink.write(chunk)
        assert sink.head == sink.tail == b"GIF89a"

    @pytest.mark.parametrize("flush_at", [1, 5000, 1_000_000])
    async def test_inspect_sees_all_bytes_and_writing_continues(
        self, sink: Sink, monkeypatch: pytest.MonkeyPatch, flush_at: int
    ) -> None:
        monkeypatch.setattr(sinks, "FLUSH_AT", flush_at)
        assert await sink.inspect(bytes) == b""
        await sink.write(DATA)
        assert await sink.inspect(bytes) == DATA
        await sink.write(DATA)
        assert await sink.inspect(bytes) == DATA + DATA
        await sink.restart()
        assert await sink.inspect(bytes) == b""
        await sink.write(b"GIF")
        assert await sink.inspect(bytes) == b"GIF"

    async def test_restart_discards_all_bytes(self, sink: Sink) -> None:
        await sink.write(DATA)
        await sink.restart()
        assert (sink.size, sink.head, sink.tail) == (0, b"", b"")
        await sink.write(b"GIF89a")
        assert sink.head == sink.tail == b"GIF89a"


async def test_a_memory_sink_returns_its_data() -> None:
    sink = MemorySink()
    await sink.write(b"lost")
    await sink.restart()
    await sink.write(DATA[:100])
    await sink.write(DATA[100:])
    assert sink.data == DATA


class TestFileSink:
    @pytest.mark.parametrize("flush_at", [1, 1000, 1_000_000])
    @pytest.mark.parametrize("kind", ["plain", "durable"])
    async def test_commit_renames_the_complete_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flush_at: int, kind: str
    ) -> None:
        monkeypatch.setattr(sinks, "FLUSH_AT", flush_at)
        sink = FileSink(tmp_path / "new", "fox.jpg", durable=kind == "durable")
        await sink.write(b"lost")
        await sink.restart()
        for start in range(0, len(DATA), 300):
            await sink.write(DATA[start : start + 300])
        target = tmp_path / "new" / "fox.jpg"
        assert not target.exists()
        await sink.commit(target)
        assert target.read_bytes() == DATA
        assert list(target.parent.iterdir()) == [target]

    async def test_commit_replaces_an_existing_file(self, tmp_path: Path) -> None:
        target = tmp_path / "fox.jpg"
        target.write_text("old")
        sink = FileSink(tmp_path, "fox.jpg")
        await sink.write(DATA)
        await sink.commit(target)
        assert target.read_bytes() == DATA

    async def test_small_chunks_are_collected_before_a_thread_writes_them(self, tmp_path: Path) -> None:
        sink = FileSink(tmp_path, "fox.jpg")
        await sink.write(DATA)
        assert not list(tmp_path.iterdir())
        await sink.write(bytes(sinks.FLUSH_AT))
        (part,) = tmp_path.iterdir()
        assert part.stat().st_size == sink.size
        assert part.name.startswith(".fox.jpg.")
        assert part.suffix == ".part"
        await sink.discard()

    @pytest.mark.parametrize("flush_at", [1, 1_000_000])
    async def test_discard_removes_the_temporary_file(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flush_at: int
    ) -> None:
        monkeypatch.setattr(sinks, "FLUSH_AT", flush_at)
        sink = FileSink(tmp_path, "fox.jpg")
        await sink.write(DATA)
        await sink.discard()
        assert not list(tmp_path.iterdir())

    async def test_a_write_after_discard_creates_no_file(self, tmp_path: Path) -> None:
        """The thread of a cancelled caller may be late."""
        sink = FileSink(tmp_path, "fox.jpg")
        await sink.discard()
        await sink.write(bytes(sinks.FLUSH_AT))
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("name", ["x" * 250, "🦊" * 60 + ".png", "é" * 120, "\udcff" * 250])
    async def test_a_long_name_is_shortened_in_bytes(self, tmp_path: Path, name: str) -> None:
        sink = FileSink(tmp_path, name)
        await sink.write(bytes(sinks.FLUSH_AT))
        (part,) = tmp_path.iterdir()
        assert len(part.name.encode()) < 110
        await sink.discard()

    async def test_a_device_is_not_replaced(self, tmp_path: Path) -> None:
        sink = FileSink(tmp_path, "fox.jpg")
        await sink.write(DATA)
        with pytest.raises(OSError, match="a device, which is not replaced"):
            await sink.commit(Path("/dev/null"))
        await sink.discard()
        assert not list(tmp_path.iterdir())

    async def test_discard_survives_a_directory_that_is_gone(self, tmp_path: Path) -> None:
        sink = FileSink(tmp_path / "new", "fox.jpg")
        await sink.write(bytes(sinks.FLUSH_AT))
        shutil.rmtree(tmp_path / "new")
        (tmp_path / "new").write_text("")
        await sink.discard()
