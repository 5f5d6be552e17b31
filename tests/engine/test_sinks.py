"""The sinks of downloads by themselves: memory, and a temporary file that is renamed at the end."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kontext_async.engine import sinks
from kontext_async.engine.sinks import FileSink, MemorySink, Sink

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.anyio

DATA = bytes(range(256)) * 40


@pytest.fixture(params=["memory", "file"])
def sink(request: pytest.FixtureRequest, tmp_path: Path) -> Sink:
    return MemorySink() if request.param == "memory" else FileSink(tmp_path, "fox.jpg")


class TestHeadAndTail:
    @pytest.mark.parametrize("step", [1, 5, 4095, 4096, 4097, len(DATA)])
    async def test_head_and_tail_do_not_depend_on_the_chunks(self, sink: Sink, step: int) -> None:
        for start in range(0, len(DATA), step):
            await sink.write(DATA[start : start + step])
        assert sink.size == len(DATA)
        assert DATA.startswith(sink.head)
        assert len(sink.head) >= 12
        assert sink.tail == DATA[-4096:]

    async def test_a_short_image_is_its_own_head_and_tail(self, sink: Sink) -> None:
        for chunk in (b"GIF", b"89a"):
            await sink.write(chunk)
        assert sink.head == sink.tail == b"GIF89a"

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

    async def test_a_long_name_is_shortened(self, tmp_path: Path) -> None:
        sink = FileSink(tmp_path, "x" * 250)
        await sink.write(bytes(sinks.FLUSH_AT))
        (part,) = tmp_path.iterdir()
        assert len(part.name) < 110
        await sink.discard()
