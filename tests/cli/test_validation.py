"""The validation of a long prompt file: what it prints, and its end when the command is cancelled."""

from __future__ import annotations

import asyncio
import re
import threading
from typing import TYPE_CHECKING

import pytest
from session_support import until

from kontext_async.cli import progress
from kontext_async.cli.options import OutputOptions
from kontext_async.cli.output import Output
from kontext_async.cli.validation import validate_file

if TYPE_CHECKING:
    from pathlib import Path

LINES = 60_000
REPORTS = LINES * len("a red fox in the snow\n") // (64 * 1024)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A prompt file that takes seconds; each report about it is printed."""
    monkeypatch.setattr(progress, "SECONDS_PER_LINE", 0.0)
    path = tmp_path / "p.txt"
    path.write_text("a red fox in the snow\n" * LINES)
    return path


def workers() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread is not threading.main_thread()}


def test_lines_and_the_part_of_the_file_are_shown(file: Path) -> None:
    printed: list[str] = []
    report = asyncio.run(validate_file(file, {}, Output(OutputOptions(), print_above=printed.append)))
    assert report.requests == LINES
    assert REPORTS - 3 <= len(printed) <= REPORTS
    assert re.fullmatch(r"checking p\.txt: line [0-9]{4}, [4-9]% of the file", printed[0])
    assert re.fullmatch(r"checking p\.txt: line 5[0-9]{4}, (9[0-9]|100)% of the file", printed[-1])


def test_a_cancelled_command_does_not_read_the_rest_of_the_file(file: Path) -> None:
    printed: list[str] = []
    before = workers()

    async def cancel() -> set[threading.Thread]:
        output = Output(OutputOptions(), print_above=printed.append)
        task = asyncio.create_task(validate_file(file, {}, output))
        await until(lambda: printed)
        readers = workers() - before
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        return readers

    for reader in asyncio.run(cancel()):
        reader.join(20)
        assert not reader.is_alive()
    assert len(printed) < REPORTS / 3
