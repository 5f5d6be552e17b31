"""Files that are not the run's: they are neither deleted, nor overwritten, nor followed, nor called intact."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from image_support import is_image_file

from kontext_async import KontextSession, StoreSettings
from kontext_async.bulk import BulkRun, RunLocked, RunRefused
from kontext_async.bulk.contact_sheet import regenerate_reports
from kontext_async.bulk.lock import DirectoryLock
from kontext_async.bulk.paths import is_relative_name
from kontext_async.store.urls import store_from_url

if TYPE_CHECKING:
    from bulk_support import Folder, RunRequests

    from kontext_async.emulator import Emulator

pytestmark = pytest.mark.anyio

FOXES = ["fox", "wolf"]
LEFT_BEHIND = ".000000-fox.jpg.0123abcd.part"


async def test_only_partial_files_of_the_run_s_own_shape_and_folders_are_deleted(
    run: RunRequests, folder: Folder
) -> None:
    folder.path.mkdir()
    foreign = [
        ".video.mp4.part",
        ".x.0123ABCD.part",
        "x.0123abcd.part",
        ".0123abcd.part",
        f"elsewhere/{LEFT_BEHIND}",
        f".mozilla/{LEFT_BEHIND}",
    ]
    for name in foreign:
        path = folder.path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("of somebody else")
    (folder.path / LEFT_BEHIND).write_text("before the first run, nothing is the run's")
    await run(FOXES, filename_template="{model}/{index:06d}-{slug}.{ext}")
    assert (folder.path / LEFT_BEHIND).exists()
    (folder.path / "flux_kontext_pro" / LEFT_BEHIND).write_text("of a killed run")
    folder.change("UPDATE kontext_requests SET state = 'finished' WHERE id = 1")
    (folder.path / ".index.html.0123abcd.part").write_text("of a killed run")
    (folder.path / ".dir.0123abcd.part").mkdir()
    await run(FOXES)
    left = {str(path.relative_to(folder.path)) for path in folder.path.rglob("*.part")}
    assert left == {*foreign, ".dir.0123abcd.part"}


async def test_a_lock_that_is_a_symbolic_link_is_refused_and_not_followed(
    run: RunRequests, folder: Folder, tmp_path: Path
) -> None:
    folder.path.mkdir()
    target = tmp_path / "precious"
    target.write_text("precious")
    (folder.path / ".lock").symlink_to(target)
    with pytest.raises(RunRefused, match="symbolic link"):
        await run(FOXES)
    assert target.read_text() == "precious"


async def test_a_lock_of_another_program_is_not_overwritten(run: RunRequests, folder: Folder) -> None:
    folder.path.mkdir()
    (folder.path / ".lock").write_text("held by pid 7\n")
    with pytest.raises(RunRefused, match="a file of another program"):
        await run(FOXES)
    assert (folder.path / ".lock").read_text() == "held by pid 7\n"


@pytest.mark.parametrize("name", ["results.jsonl", "run.json", "index.html"])
async def test_a_symbolic_link_in_place_of_a_report_is_not_followed(
    run: RunRequests, folder: Folder, tmp_path: Path, name: str
) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    folder.path.mkdir()
    (folder.path / name).symlink_to(target)
    with contextlib.suppress(RunRefused):
        await run(FOXES)
    assert target.read_text() == "precious"


async def test_a_link_that_leads_nowhere_is_not_followed(run: RunRequests, folder: Folder, tmp_path: Path) -> None:
    folder.path.mkdir()
    (folder.path / "results.jsonl").symlink_to(tmp_path / "made")
    with pytest.raises(RunRefused, match="has a run"):
        await run(FOXES)
    assert not (tmp_path / "made").exists()


async def test_a_page_of_somebody_else_is_not_replaced_by_the_contact_sheet(run: RunRequests, folder: Folder) -> None:
    folder.path.mkdir()
    (folder.path / "index.html").write_text("my site")
    for _ in range(2):
        with pytest.raises(RunRefused, match="the contact sheet would replace it"):
            await run(FOXES)
    assert (folder.path / "index.html").read_text() == "my site"


@pytest.mark.parametrize(
    "name", ["../outside/x.jpg", "/etc/x.jpg", "a/../../x.jpg", "..\\x.jpg", "C:x.jpg", "x\0.jpg", "link/x.jpg"]
)
async def test_a_name_in_a_journal_does_not_lead_out_of_the_directory(
    run: RunRequests, folder: Folder, emulator: Emulator, tmp_path: Path, name: str
) -> None:
    await run(FOXES)
    image = (folder.path / "000000-fox.jpg").read_bytes()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "x.jpg").write_bytes(image)
    (tmp_path / "x.jpg").write_bytes(image)
    (folder.path / "link").symlink_to(outside)
    (folder.path / "000000-fox.jpg").unlink()
    folder.change("UPDATE kontext_requests SET files = ? WHERE id = 1", json.dumps([[name, len(image)]]))
    for path in (outside / "x.jpg", tmp_path / "x.jpg"):
        os.utime(path, (1, 1))
    report = await run(FOXES)
    assert (report.recovered, report.skipped) == (1, 1), "the image outside does not count"
    assert (folder.path / "000000-fox.jpg").read_bytes() == image
    assert {path.stat().st_mtime for path in (outside / "x.jpg", tmp_path / "x.jpg")} == {1}
    assert emulator.ledger.accepted == 2


@pytest.mark.parametrize("name", ["", "..", "/x", "a/../b", "a\\b", "c:b", "a\0", 7, None, ["a"]])
def test_a_name_that_is_not_below_the_directory_is_recognized(name: object) -> None:
    assert not is_relative_name(name)
    assert is_relative_name("a/b.jpg")


async def test_no_image_is_saved_through_a_link_that_leads_out_of_the_directory(
    run: RunRequests, folder: Folder, tmp_path: Path
) -> None:
    (tmp_path / "outside").mkdir()
    folder.path.mkdir()
    (folder.path / "flux_kontext_pro").symlink_to(tmp_path / "outside")
    report = await run(["fox"], filename_template="{model}/{index}.{ext}")
    assert report.failed == {"DownloadFailed": 1}
    assert "leads out of the run's directory" in str(report.stopped)
    assert list((tmp_path / "outside").iterdir()) == []
    assert (await run(["fox"])).recovered == 1


async def test_an_image_does_not_replace_a_link_to_something_that_is_gone(run: RunRequests, folder: Folder) -> None:
    folder.path.mkdir()
    (folder.path / "000000-fox.jpg").symlink_to("/nonexistent/precious.jpg")
    await run(["fox"])
    assert (folder.path / "000000-fox.jpg").is_symlink()
    (name,) = folder.results()[0]["files"]
    assert name.startswith("000000-fox-")
    assert is_image_file(folder.path / name)


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS])
def test_a_file_system_without_locks_is_named_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(RunRefused, match="has no file locks") as caught:
        DirectoryLock(tmp_path).acquire()
    assert not isinstance(caught.value, RunLocked)
    assert errno.errorcode[number] in str(caught.value)
    assert "Use a directory on a local disk" in str(caught.value)


async def test_a_run_keeps_its_directory_and_its_images_when_the_process_changes_its_own(
    emulator: Emulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    async with KontextSession(emulator.api_key, base_url=emulator.base_url) as session:
        await session.save(await session.generate("a fox"), "in.jpg")
        run = BulkRun(session, "out", store="sqlite:///all.sqlite", run="foxes")
        monkeypatch.chdir(tmp_path / "elsewhere")
        report = await run.execute(["a fox", {"prompt": "dusk", "input_images": Path("in.jpg")}])
    assert report.complete
    assert sorted(path.name for path in tmp_path.iterdir()) == ["all.sqlite", "elsewhere", "in.jpg", "out"]
    assert list((tmp_path / "elsewhere").iterdir()) == []
    monkeypatch.chdir(tmp_path)
    store = store_from_url("sqlite:///all.sqlite", StoreSettings())
    assert (await regenerate_reports(Path("out"), store=store)).lines == 2
