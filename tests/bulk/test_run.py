"""A durable run: the outcomes, the report, and the files in the directory afterwards."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from decimal import Decimal
from typing import TYPE_CHECKING

import anyio
import attrs
import pytest
from bulk_support import ONE_AT_A_TIME, Folder, RunRequests

from kontext_async import ConfigurationError, InvalidRequest, KontextSession, Limits, SessionClosed
from kontext_async.bulk import BulkRun, RunLocked, RunRefused
from kontext_async.emulator import Emulator
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

FOXES = [f"fox {number}" for number in range(12)]


async def test_a_result_line_contains_the_request_and_its_result(
    run: RunRequests, folder: Folder, emulator: Emulator
) -> None:
    await run([{"prompt": "a “fox” </script>", "seed": 7, "aspect_ratio": "16:9", "output_format": "png"}])
    (result,) = folder.results()
    assert result.pop("completed_at").startswith("20")
    assert result.pop("seconds") >= 0
    assert len(result.pop("fingerprint")) == 64
    assert result == {
        "completion": 1,
        "index": 0,
        "state": "saved",
        "prompt": "a “fox” </script>",
        "model": "flux_kontext_pro",
        "fields": {"seed": 7, "aspect_ratio": "16:9", "output_format": "png"},
        "occurrence": 0,
        "task_id": emulator.ledger.task_ids[0],
        "files": ["000000-a-fox-script.png"],
        "cost": "0.04",
        "error": None,
    }


async def test_equal_requests_get_one_image_each(run: RunRequests, folder: Folder, emulator: Emulator) -> None:
    await run(["fox"] * 3)
    assert [(row["key"].rpartition("-")[2], row["position"]) for row in folder.rows()] == [("0", 0), ("1", 1), ("2", 2)]
    report = await run(["fox"] * 5)
    assert (report.completed, report.skipped) == (2, 3)
    assert emulator.ledger.accepted == len(folder.images()) == 5


async def test_an_image_never_replaces_an_image_of_another_request(run: RunRequests, folder: Folder) -> None:
    await run(["a fox"], filename_template="{slug}.{ext}")
    await run(["a fox", "a fox", "A FOX!"], filename_template="{slug}.{ext}")
    assert len(folder.images()) == 3
    assert len({row["files"] for row in folder.rows()}) == 3


async def test_all_images_of_a_task_are_saved(run: RunRequests, folder: Folder, emulator: Emulator) -> None:
    emulator.faults.script("create", ["several-urls"])
    await run(["fox"])
    assert folder.results()[0]["files"] == folder.images() == [f"000000-fox-{number}.jpg" for number in (1, 2, 3)]
    assert (await run(["fox"])).skipped == 1


async def test_requests_are_equal_if_the_contents_of_their_input_images_are_equal(
    run: RunRequests, folder: Folder, emulator: Emulator, tmp_path: Path
) -> None:
    await run(["fox"])
    source = tmp_path / "in.jpg"
    source.write_bytes((folder.path / "000000-fox.jpg").read_bytes())
    edit = {"prompt": "dusk", "input_images": [source]}
    assert (await run([edit])).completed == 1
    copy = source.rename(tmp_path / "other.jpg")
    with copy.open("rb") as file:
        assert (await run([{"prompt": "dusk", "input_images": [file]}])).skipped == 1
    copy.write_bytes(copy.read_bytes() + b"\xff\xd9")
    assert (await run([{"prompt": "dusk", "input_images": [copy]}])).completed == 1
    assert emulator.ledger.accepted == 3


async def test_invalid_requests_are_counted_as_failed(run: RunRequests, folder: Folder) -> None:
    report = await run(["fox", " ", {"prompt": "x", "input_images": ["gone.png"]}, 7])
    assert (report.completed, report.failed, report.total) == (1, {"InvalidRequest": 3}, 4)
    assert len(folder.rows()) == 1


async def test_an_error_of_the_input_is_raised_after_the_outcomes_before_it(emulator: Emulator, folder: Folder) -> None:
    def requests() -> Iterator[str]:
        yield "fox"
        raise LookupError("the database is gone")

    async def coming() -> AsyncIterator[str]:
        for request in requests():
            yield request

    for source in (requests, coming):
        async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=FAST) as session:
            run = BulkRun(session, folder.path)
            with pytest.raises(LookupError):
                await run.execute(source())
            assert run.report.completed + run.report.skipped == 1
    assert emulator.ledger.accepted == 1


async def test_requests_of_a_slow_async_iterable_are_submitted_as_they_arrive(
    emulator: Emulator, folder: Folder
) -> None:
    done = asyncio.Event()

    async def requests() -> AsyncIterator[str]:
        yield "fox"
        await done.wait()
        yield "wolf"

    seen = []
    async with (
        KontextSession(emulator.api_key, base_url=emulator.base_url, settings=FAST) as session,
        aclosing(BulkRun(session, folder.path).outcomes(requests())) as outcomes,
    ):
        with anyio.fail_after(10):
            async for outcome in outcomes:
                seen.append(outcome.index)
                done.set()
    assert seen == [0, 1]


async def test_a_single_prompt_is_rejected_as_input(run: RunRequests) -> None:
    with pytest.raises(InvalidRequest):
        await run("a fox")


async def test_the_input_is_read_lazily_in_bounded_chunks(emulator: Emulator, folder: Folder) -> None:
    read = 0

    def requests() -> Iterator[str]:
        nonlocal read
        for read in range(1, 5000):
            yield f"fox {read}"

    async with (
        KontextSession(emulator.api_key, base_url=emulator.base_url, settings=ONE_AT_A_TIME) as session,
        aclosing(BulkRun(session, folder.path).outcomes(requests())) as outcomes,
    ):
        async for _ in outcomes:
            assert read <= 512  # a chunk that is started, and the one after it
            break


async def test_stop_ends_submitting_and_saves_the_tasks_in_flight(folder: Folder) -> None:
    settings = attrs.evolve(FAST, limits=Limits(max_in_flight=3, polls_per_second=2000))
    async with (
        Emulator(service_time=0.3, pixels=256) as slow,
        KontextSession(slow.api_key, base_url=slow.base_url, settings=settings) as session,
    ):
        run = BulkRun(session, folder.path)
        async with anyio.create_task_group() as group:
            group.start_soon(run.execute, FOXES)
            while slow.ledger.accepted < 3:
                await anyio.sleep(0.01)
            run.stop(20)
        report = run.report
        assert (report.completed, slow.ledger.accepted) == (3, 3)
        assert report.remaining == report.total - 3
        assert "was stopped before all requests were submitted" in str(report.stopped)
        assert set(folder.states()) == {"saved", "planned"}


async def test_a_rejected_api_key_stops_the_run_at_once(emulator: Emulator, folder: Folder) -> None:
    async with KontextSession("wrong-key", base_url=emulator.base_url, settings=ONE_AT_A_TIME) as session:
        report = await BulkRun(session, folder.path).execute(FOXES)
    assert type(report.stopped).__name__ == "AuthenticationFailed"
    assert (report.failed, report.remaining) == ({}, report.total)
    assert set(folder.states()) == {"planned"}


async def test_a_second_run_in_the_same_directory_is_refused(emulator: Emulator, folder: Folder) -> None:
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=FAST) as session:
        async with aclosing(BulkRun(session, folder.path).outcomes(FOXES)) as outcomes:
            await anext(outcomes)
            with pytest.raises(RunLocked, match=r"another run is using .*out \(process \d+\)") as caught:
                await BulkRun(session, folder.path).execute(FOXES)
        assert caught.value.pid is not None
        assert (await BulkRun(session, folder.path).execute(FOXES)).complete


async def test_a_run_needs_a_running_session(emulator: Emulator, folder: Folder) -> None:
    session = KontextSession(emulator.api_key, base_url=emulator.base_url)
    run = BulkRun(session, folder.path)
    with pytest.raises(SessionClosed):
        await run.execute(FOXES)
    with pytest.raises(ConfigurationError, match="no report"):
        _ = run.report
    assert not folder.path.exists()


@pytest.mark.parametrize("limit", ["0", "-1", "NaN", "Infinity"])
async def test_a_cost_limit_that_is_not_positive_is_rejected(limit: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="max_cost"):
        BulkRun(KontextSession("key"), tmp_path, max_cost=Decimal(limit))


async def test_a_directory_that_cannot_be_created_is_refused(
    run: RunRequests, folder: Folder, emulator: Emulator
) -> None:
    folder.path.write_text("a file")
    with pytest.raises(RunRefused, match="cannot be created"):
        await run(FOXES)
    assert emulator.ledger.entries == ()
