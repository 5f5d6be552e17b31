"""A run that is executed again: it skips, recovers, reports or resubmits the requests of earlier runs."""

from __future__ import annotations

from contextlib import aclosing
from decimal import Decimal

import anyio
import attrs
import pytest
from bulk_support import ONE_AT_A_TIME, Folder, RunRequests

from kontext_async import KontextRequest, KontextSession, Polling, Retries, SessionClosed, SubmissionUncertain
from kontext_async.bulk import BulkRun
from kontext_async.emulator import Emulator, Fault, FaultKind
from kontext_async.testing import FAST

pytestmark = pytest.mark.anyio

FOXES = [f"fox {number}" for number in range(12)]


async def test_a_second_run_skips_what_the_first_one_completed(
    run: RunRequests, folder: Folder, emulator: Emulator
) -> None:
    report = await run(FOXES)
    assert (report.completed, report.total, report.complete) == (12, 12, True)
    assert report.spent == report.total_spent == emulator.ledger.spent == Decimal("0.48")
    assert folder.images() == [f"{number:06d}-fox-{number}.jpg" for number in range(12)]
    assert folder.other_files() == [".lock", "index.html", "journal.sqlite", "results.jsonl", "run.json"]
    again = await run(FOXES)
    assert (again.completed, again.skipped, again.complete) == (0, 12, True)
    assert (again.spent, again.cost_avoided, again.total_spent) == (Decimal(0), Decimal("0.48"), Decimal("0.48"))
    assert emulator.ledger.accepted == 12
    assert len(folder.results()) == 12


async def test_a_resumed_run_knows_how_long_tasks_take(folder: Folder) -> None:
    polling = Polling(initial_delay=0.2, interval=8.0, min_interval=0.01, poll_cost=0.02)
    slow_start = attrs.evolve(FAST, polling=polling)
    async with Emulator(service_time=0.5, pixels=256) as emulator:
        for prompts in (FOXES, [*FOXES, "bear", "wolf"]):
            async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=slow_start) as session:
                await BulkRun(session, folder.path).execute(prompts)
    seconds = {result["prompt"]: result["seconds"] for result in folder.results()}
    assert all(seconds[fox] > 1.95 for fox in FOXES), "the second poll of the fixed schedule saw their ends"
    assert seconds["bear"] < 1.95
    assert seconds["wolf"] < 1.95


async def test_changed_and_added_prompts_are_submitted(run: RunRequests, folder: Folder, emulator: Emulator) -> None:
    await run(["a", "b"])
    report = await run(["new", "a", {"prompt": "b", "seed": 1}])
    assert (report.completed, report.skipped, report.orphans) == (2, 1, 0)
    assert emulator.ledger.accepted == 4
    assert folder.images() == [
        "000000-a.jpg",
        "000000-new.jpg",
        "000001-b.jpg",
        "000002-b.jpg",
    ]


@pytest.mark.parametrize("damage", ["gone", "cut", "other"])
async def test_a_missing_or_damaged_file_is_downloaded_again_without_another_task(
    run: RunRequests, folder: Folder, emulator: Emulator, damage: str
) -> None:
    await run(["fox", "wolf"])
    path = folder.path / "000000-fox.jpg"
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(whole[:-10] if damage == "cut" else b"x" * len(whole))
    report = await run(["fox", "wolf"])
    assert (report.recovered, report.skipped, report.cost_avoided) == (1, 1, Decimal("0.08"))
    assert path.read_bytes() == whole
    assert emulator.ledger.accepted == 2
    assert [line["completion"] for line in folder.results()] == sorted(row["completion"] for row in folder.rows())


async def test_accepted_tasks_are_resumed(folder: Folder) -> None:
    async with Emulator(service_time=0.6, pixels=256) as slow:
        async with KontextSession(slow.api_key, base_url=slow.base_url, settings=FAST) as session:
            run = BulkRun(session, folder.path)
            async with anyio.create_task_group() as group:
                group.start_soon(run.execute, FOXES[:4])
                while session.statistics().pending < 4:
                    await anyio.sleep(0.01)
                run.stop(0.05)
            assert (run.report.completed, run.report.remaining) == (0, 4)
        assert folder.states() == ["accepted"] * 4
        async with KontextSession(slow.api_key, base_url=slow.base_url, settings=FAST) as session:
            report = await BulkRun(session, folder.path).execute(FOXES[:3])
        assert (report.recovered, report.orphans, report.completed) == (3, 1, 0)
        assert report.cost_avoided == Decimal("0.12")
        assert len(folder.images()) == slow.ledger.accepted == 4


async def test_uncertain_requests_are_reported_and_resubmitted_only_on_request(
    run: RunRequests, folder: Folder, emulator: Emulator
) -> None:
    emulator.faults.script("create", ["cut-after-accept"])
    first = await run(["fox", "wolf"], settings=ONE_AT_A_TIME)
    assert (first.completed, first.uncertain_in_input, first.complete) == (1, 1, False)
    assert [(each.index, each.prompt) for each in first.uncertain] == [(0, "fox")]
    again = await run(["fox", "wolf"])
    assert (again.skipped, again.uncertain_in_input) == (1, 1)
    assert emulator.ledger.accepted == 2
    resent = await run(["fox", "wolf"], resend_uncertain=True)
    assert (resent.completed, resent.skipped, resent.uncertain) == (1, 1, ())
    assert emulator.ledger.accepted == 3
    assert folder.rows()[0]["uncertain_attempts"] == 1


async def test_the_outcome_of_an_uncertain_request_is_the_same_error_in_every_run(
    emulator: Emulator, folder: Folder
) -> None:
    emulator.faults.script("create", ["cut-after-accept"])
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=FAST) as session:
        for seen in ("Disconnected", "uncertain earlier"):
            (outcome,) = [each async for each in BulkRun(session, folder.path).outcomes(["fox"])]
            assert isinstance(outcome.error, SubmissionUncertain), seen
            assert outcome.request == KontextRequest("fox")
            assert not outcome.ok


async def test_failed_requests_are_reported_and_resubmitted_only_on_request(
    run: RunRequests, folder: Folder, emulator: Emulator
) -> None:
    emulator.faults.script("create", ["failed-at-once", Fault(kind=FaultKind.HTTP_STATUS, status=422)])
    first = await run(["fox", "wolf", "bear"], settings=ONE_AT_A_TIME)
    assert (first.completed, first.failed) == (1, {"TaskFailed": 1, "RequestRejected": 1})
    again = await run(["fox", "wolf", "bear"])
    assert (again.skipped, again.failed) == (1, {"TaskFailed": 1, "RequestRejected": 1})
    assert [line["error"] and line["error"]["type"] for line in folder.results()] == [
        "TaskFailed",
        "RequestRejected",
        None,
    ]
    retried = await run(["fox", "wolf", "bear"], retry_failed=True)
    assert (retried.completed, retried.skipped, retried.failed) == (2, 1, {})
    assert sorted(line["state"] for line in folder.results()) == ["saved"] * 3, "earlier lines are replaced"


async def test_a_temporary_failure_leaves_the_request_to_the_next_run(
    run: RunRequests, folder: Folder, emulator: Emulator
) -> None:
    emulator.faults.set_rate(Fault(kind=FaultKind.UNAVAILABLE, retry_after=0), 1.0)
    settings = attrs.evolve(
        FAST, retries=Retries(attempts=2, backoff_initial=0.01, backoff_max=0.01, max_retry_after=0.01)
    )
    report = await run(["fox"], settings=settings)
    assert (report.failed, report.remaining, folder.states()) == ({}, 1, ["planned"])
    emulator.faults.clear()
    assert (await run(["fox"])).completed == 1


async def test_a_task_that_the_gateway_deleted_is_expired(run: RunRequests, folder: Folder, emulator: Emulator) -> None:
    await run(["fox", "wolf"])
    folder.change("UPDATE kontext_requests SET state = 'accepted', task_id = 'unknown', cost = NULL WHERE id = 1")
    report = await run(["fox", "wolf"])
    assert (report.failed, folder.states()) == ({"TaskNotFound": 1}, ["expired", "saved"])
    assert (await run(["fox", "wolf"])).failed == {"TaskNotFound": 1}
    assert emulator.ledger.accepted == 2
    assert (await run(["fox", "wolf"], retry_failed=True)).completed == 1


async def test_a_failed_download_is_repeated_by_the_next_run(
    run: RunRequests, folder: Folder, emulator: Emulator
) -> None:
    emulator.faults.set_rate("url-expired", 1.0)
    report = await run(["fox"])
    assert (report.failed, folder.states(), report.spent) == ({"DownloadFailed": 1}, ["finished"], Decimal("0.04"))
    emulator.faults.clear()
    report = await run(["fox"])
    assert (report.recovered, report.cost_avoided, folder.states()) == (1, Decimal("0.04"), ["saved"])


async def test_a_run_whose_iterator_was_left_early_is_resumed(
    emulator: Emulator, folder: Folder, run: RunRequests
) -> None:
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=FAST) as session:
        bulk = BulkRun(session, folder.path)
        async with aclosing(bulk.outcomes(FOXES)) as outcomes:
            async for _ in outcomes:
                break
    accepted = emulator.ledger.accepted
    report = await run(FOXES)
    assert report.completed + report.recovered + report.skipped == 12
    assert emulator.ledger.accepted == 12 >= accepted
    assert emulator.ledger.billed_twice == {}


async def test_a_run_whose_session_was_closed_is_resumed(emulator: Emulator, folder: Folder, run: RunRequests) -> None:
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=ONE_AT_A_TIME) as session:
        bulk = BulkRun(session, folder.path)

        async def close_it() -> None:
            async for _ in bulk.outcomes(FOXES):
                await session.aclose()

        with pytest.raises(SessionClosed):
            await close_it()
    report = await run(FOXES)
    assert report.completed + report.recovered + report.skipped + report.uncertain_in_input == 12
    assert emulator.ledger.billed_twice == {}
