"""The spool: the local file for IDs of paid tasks that the store could not take."""

from __future__ import annotations

import json
import logging
import resource
import signal
import stat
import subprocess
import sys
import textwrap
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, strategies as st

from kontext_async.errors import StoreUnusable
from kontext_async.store.disk_reserve import DiskReserve
from kontext_async.store.spool import RESERVE, Spool, SpooledId, SpoolFile, parse_spool

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

IDS = st.builds(
    SpooledId,
    row=st.integers(1),
    attempt=st.integers(0),
    task_id=st.text(min_size=1),
    reference=st.none() | st.text(),
    at=st.floats(allow_nan=False, allow_infinity=False),
)


def new_id(number: int = 1) -> SpooledId:
    return SpooledId(row=number, attempt=1, task_id=f"task-{number}", reference="eu", at=1.5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "spool" / "store"


@pytest.fixture
def spool(folder: Path) -> Iterator[SpoolFile]:
    spool = SpoolFile(folder, "worker")
    spool.open()
    yield spool
    spool.close()


def content(folder: Path) -> bytes:
    return (folder / "worker.jsonl").read_bytes()


@given(st.lists(st.tuples(IDS, st.booleans()), unique_by=lambda each: each[0]), st.integers(0, 1000))
def test_what_is_written_is_read_up_to_a_cut_last_line(
    tmp_path_factory: pytest.TempPathFactory, ids: list[tuple[SpooledId, bool]], cut: int
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    spool = SpoolFile(folder, "worker")
    spool.open()
    spool.add([each for each, _ in ids])
    spool.remove([each for each, is_written in ids if is_written])
    lines = content(folder)
    spool.close()
    assert parse_spool(lines) == [each for each, is_written in ids if not is_written]
    assert set(parse_spool(lines[:cut])) <= {each for each, _ in ids}


@given(st.binary())
@example(b"[" * 100_000)
@example(b'{"row": 1, "attempt": 1, "task_id": "a", "at": 1e999}\n')
@example(b'{"row": 1' + b"0" * 5000 + b"}")
@example(b'{"row":1,"attempt":1,"task_id":"a","at":1' + b"0" * 400 + b"}")
def test_foreign_bytes_are_skipped(junk: bytes) -> None:
    line = json.dumps({"row": 7, "attempt": 1, "task_id": "seven", "reference": None, "at": 1.0}).encode()
    assert parse_spool(junk + b"\n" + line)[-1].task_id == "seven"


def test_the_file_is_readable_by_its_user_only_and_disappears_when_all_is_written(
    spool: SpoolFile, folder: Path
) -> None:
    spool.add([new_id(1), new_id(2)])
    assert stat.S_IMODE((folder / "worker.jsonl").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    spool.remove([new_id(1)])
    assert parse_spool(content(folder)) == [new_id(2)]
    spool.remove([new_id(2)])
    assert content(folder) == b""
    spool.close()
    assert list(folder.iterdir()) == []


def test_the_ids_of_a_dead_worker_move_to_the_next_one(spool: SpoolFile, folder: Path) -> None:
    spool.add([new_id(1), new_id(2)])
    spool.remove([new_id(1)])
    spool.close()
    heir = SpoolFile(folder, "heir")
    heir.open()
    assert heir.adopt() == [new_id(2)]
    assert [path.name for path in folder.iterdir()] == ["heir.jsonl"]
    assert parse_spool((folder / "heir.jsonl").read_bytes()) == [new_id(2)]
    heir.close()


def test_the_ids_of_a_live_worker_stay_with_it(spool: SpoolFile, folder: Path) -> None:
    spool.add([new_id(1)])
    other = SpoolFile(folder, "other")
    other.open()
    assert other.adopt() == []
    other.close()
    assert parse_spool(content(folder)) == [new_id(1)]


def test_the_ids_of_a_killed_process_are_adopted(spool: SpoolFile, folder: Path) -> None:
    code = f"""
        import os, signal
        from pathlib import Path
        from kontext_async.store.spool import SpoolFile, SpooledId
        spool = SpoolFile(Path({str(folder)!r}), "killed")
        spool.open()
        spool.add([SpooledId(row=9, attempt=1, task_id="nine", at=1.0)])
        os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = subprocess.run(  # noqa: S603 # the text above
        [sys.executable, "-c", textwrap.dedent(code)], check=False
    )
    assert killed.returncode == -signal.SIGKILL
    assert [each.task_id for each in spool.adopt()] == ["nine"]


def test_a_file_that_was_cut_and_a_link_do_not_stop_the_adoption(spool: SpoolFile, folder: Path) -> None:
    line = json.dumps({"row": 7, "attempt": 1, "task_id": "seven", "reference": None, "at": 1.0})
    (folder / "cut.jsonl").write_text(f"{line}\n{line[:20]}")
    (folder / "link.jsonl").symlink_to("/dev/zero")
    (folder / "directory.jsonl").mkdir()
    assert [each.task_id for each in spool.adopt()] == ["seven"]
    assert not (folder / "cut.jsonl").exists()


@pytest.fixture
def size_limit() -> Iterator[None]:
    """Let files grow to the size of the reserve, and no further."""
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (RESERVE, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


def test_a_line_that_does_not_fit_leaves_no_part_of_it(spool: SpoolFile, folder: Path, size_limit: None) -> None:
    spool.add([new_id(1)])
    long = SpooledId(row=2, attempt=1, task_id="x" * RESERVE, at=1.0)
    with pytest.raises(OSError, match="large"):
        spool.add([long])
    spool.add([new_id(3)])
    assert parse_spool(content(folder)) == [new_id(1), new_id(3)]
    assert content(folder).count(b"\n") == 2


def test_the_disk_reserve_has_real_bytes_and_leaves_no_file(tmp_path: Path) -> None:
    reserve = DiskReserve(tmp_path, 2 << 20)
    reserve.allocate()
    reserve.allocate()
    assert reserve.size == 2 << 20
    assert reserve.release()
    assert not reserve.release()
    assert reserve.size == 0
    assert list(tmp_path.iterdir()) == []


def test_a_disk_reserve_that_does_not_fit_is_refused(tmp_path: Path, size_limit: None) -> None:
    reserve = DiskReserve(tmp_path, RESERVE + 1)
    with pytest.raises(StoreUnusable, match="needs 256 KiB of disk space"):
        reserve.allocate()
    assert not reserve.release()


async def test_a_spool_that_cannot_be_written_is_said_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "identity").write_text("a file where the folder should be")
    spool = Spool(tmp_path, "identity", "worker")
    with caplog.at_level(logging.WARNING, "kontext_async"):
        assert await spool.open() == []
        assert not await spool.add([new_id(1)])
        await spool.remove([new_id(1)])
        await spool.aclose()
    [record] = caplog.records
    assert "cannot be written" in record.getMessage()


@pytest.mark.parametrize("identity", ["../../etc", "", "a/b", "\udcff"])
async def test_a_foreign_identity_does_not_lead_out_of_the_folder(tmp_path: Path, identity: str) -> None:
    spool = Spool(tmp_path / "spool", identity, "worker")
    await spool.open()
    [folder] = (tmp_path / "spool").iterdir()
    assert [path.name for path in folder.iterdir()] == ["worker.jsonl"]
    assert [path.name for path in tmp_path.iterdir()] == ["spool"]
    await spool.aclose()
