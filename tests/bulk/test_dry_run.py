"""The prediction of a run: what it would submit and cost. Nothing is submitted, and nothing is written."""

from __future__ import annotations

import json
import shutil
from decimal import Decimal
from pathlib import Path

import pytest
from rows_support import JPEG, RowWriter

from kontext_async.bulk import RunLocked, read_requests
from kontext_async.bulk.contact_sheet import regenerate_reports
from kontext_async.bulk.directory import open_run_directory
from kontext_async.bulk.dry_run import plan_run
from kontext_async.errors import ConfigurationError, StoreUnusable
from kontext_async.store.memory import MemoryStore

pytestmark = pytest.mark.anyio

PROMPTS = ("fox", "wolf", "owl")
DATA = Path(__file__).parents[1] / "data"


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


async def test_a_run_that_is_new_to_the_store_submits_everything_and_writes_nothing(
    store: MemoryStore, tmp_path: Path
) -> None:
    plan = await plan_run([*PROMPTS, "fox", " "], tmp_path / "out", store=store, run="night")
    assert list(plan.lines()) == ["5 requests", "4 to submit, cost unknown", "1 invalid; cannot be submitted"]
    assert not (tmp_path / "out").exists()
    assert not store.database.runs


async def test_a_finished_run_costs_nothing_from_a_fresh_directory(store: MemoryStore, tmp_path: Path) -> None:
    writer = await RowWriter.start(store, "night")
    await writer.save(*await writer.plan(*PROMPTS), folder=await store.folder(bytes(16), "/elsewhere"))
    plan = await plan_run(PROMPTS, tmp_path / "out", store=store.share(), run="night")
    assert list(plan.lines()) == [
        "3 requests",
        "0 to submit, about 0 USD",
        "3 already completed; skipped",
        "0.12 USD spent by earlier runs",
    ]


async def test_the_prediction_says_what_becomes_of_rows_in_every_state(store: MemoryStore, tmp_path: Path) -> None:
    now = [0.0]
    store = MemoryStore(clock=lambda: now[0])
    writer = await RowWriter.start(store, "night", lease=15)
    prompts = ["planned", "sent", "uncertain", "accepted", "completed", "saved", "rejected"]
    _, sent, uncertain, accepted, completed, saved, rejected = await writer.plan(*prompts)
    folder = await store.folder(bytes(16), "/elsewhere")
    await writer.submit(sent)
    await writer.leave_uncertain(uncertain)
    await writer.accept(accepted)
    await writer.complete(completed, folder=folder)
    await writer.save(saved, folder=folder)
    await writer.fail(rejected, folder=folder, completion=2)
    before = dict(store.database.rows)

    async def predict(*, again: bool = False) -> list[str]:
        plan = await plan_run(
            prompts, tmp_path / "out", store=store.share(), run="night", resend_uncertain=again, retry_failed=again
        )
        return list(plan.lines())

    others = ["0.08 USD spent by earlier runs"]
    assert await predict() == [
        "7 requests",
        "1 to submit, about 0.04 USD",
        "1 already completed; skipped",
        "3 in progress with other workers",
        "1 uncertain; not resubmitted without --resend-uncertain, which may be billed twice",
        "1 failed or expired; not resubmitted without --retry-failed",
        *others,
    ]
    now[0] = 16.0
    assert await predict() == [
        "7 requests",
        "1 to submit, about 0.04 USD",
        "2 already paid for; images will be downloaded at no extra cost",
        "1 already completed; skipped",
        "2 uncertain; not resubmitted without --resend-uncertain, which may be billed twice",
        "1 failed or expired; not resubmitted without --retry-failed",
        *others,
    ]
    assert await predict(again=True) == [
        "7 requests",
        "4 to submit, about 0.16 USD",
        "2 already paid for; images will be downloaded at no extra cost",
        "1 already completed; skipped",
        *others,
    ]
    assert store.database.rows == before


async def test_an_image_that_is_missing_in_the_directory_is_downloaded(store: MemoryStore, tmp_path: Path) -> None:
    writer = await RowWriter.start(store, "night")
    rows = await writer.plan("fox", "wolf")
    async with open_run_directory(tmp_path) as directory:
        run = await store.open_run(await directory.find_run(store, "night"))
        assert run
        await directory.join(store, run)
        await writer.save(*rows, folder=directory.folder)
    (tmp_path / f"{rows[0].id}.jpg").write_bytes(JPEG)
    plan = await plan_run(["fox", "wolf"], tmp_path, store=store)
    assert (plan.to_skip, plan.to_recover, plan.to_submit, plan.spent) == (1, 1, 0, Decimal("0.08"))


async def test_a_run_in_a_shared_store_needs_a_name(store: MemoryStore, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="give the run a name"):
        await plan_run(PROMPTS, tmp_path / "out", store=store)


async def test_the_progress_of_a_long_input_is_reported(store: MemoryStore, tmp_path: Path) -> None:
    read: list[int] = []
    plan = await plan_run(
        (f"fox {number}" for number in range(600)), tmp_path / "out", store=store, run="night", on_progress=read.append
    )
    assert plan.total == plan.to_submit == read[-1] == 600
    assert len(read) >= 3
    assert read == sorted(read)


def contents(folder: Path) -> dict[str, bytes]:
    """Return all files of a directory but its lock, byte for byte."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != ".lock"}


@pytest.fixture
def old_run(tmp_path: Path) -> Path:
    """Return the directory of a run of version 1, beside its input."""
    shutil.copytree(DATA / "journal_v1", tmp_path / "v1")
    return tmp_path / "v1" / "run-a"


async def test_a_run_of_version_1_is_predicted_and_stays_as_it_is(old_run: Path) -> None:
    before = contents(old_run)
    with read_requests(old_run.parent / "prompts.jsonl") as requests:
        plan = await plan_run(requests, old_run)
    assert list(plan.lines()) == [
        "19 requests",
        "3 to submit, about 0.12 USD",
        "2 already paid for; images will be downloaded at no extra cost",
        "8 already completed; skipped",
        "2 uncertain; not resubmitted without --resend-uncertain, which may be billed twice",
        "4 failed or expired; not resubmitted without --retry-failed",
        "0.44 USD spent by earlier runs",
    ]
    assert contents(old_run) == before


async def test_the_reports_of_a_run_of_version_1_have_what_it_recorded(old_run: Path) -> None:
    def read_lines() -> dict[int, dict[str, object]]:
        lines = map(json.loads, (old_run / "results.jsonl").read_text("utf-8").splitlines())
        return {line["completion"]: line for line in lines}

    before = read_lines()
    (old_run / "results.jsonl").unlink()
    reports = await regenerate_reports(old_run)
    after = read_lines()
    assert (reports.lines, reports.spent) == (len(after), Decimal("0.44"))
    assert after.items() <= before.items(), "the old file has lines that later ones replace, too"
    assert {(line["fingerprint"], line["occurrence"]) for line in before.values()} == {
        (line["fingerprint"], line["occurrence"]) for line in after.values()
    }


async def test_a_run_that_uses_the_directory_is_not_predicted(old_run: Path) -> None:
    async with open_run_directory(old_run):
        with pytest.raises(RunLocked):
            await plan_run(["fox"], old_run)


async def test_the_error_about_a_damaged_store_names_the_file_in_the_directory(tmp_path: Path) -> None:
    (tmp_path / "journal.sqlite").write_bytes(b"not a database" * 100)
    with pytest.raises(StoreUnusable) as caught:
        await plan_run(["fox"], tmp_path)
    assert str(tmp_path / "journal.sqlite") in str(caught.value)
