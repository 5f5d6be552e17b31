"""Durable runs: what is done, what is skipped, what is paid, and what stands in the directory afterwards."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import anyio
import attrs
import pytest

from kontext_async import (
    ConfigurationError,
    InvalidRequest,
    KontextRequest,
    KontextSession,
    Limits,
    Retries,
    SessionClosed,
    SubmissionUncertain,
)
from kontext_async.bulk import BulkRun, RunLocked, RunRefused
from kontext_async.emulator import Emulator, Fault, FaultKind
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio

FOXES = [f"fox {number}" for number in range(12)]
ONE_AT_A_TIME = attrs.evolve(FAST, limits=Limits(max_in_flight=1, polls_per_second=2000))


async def test_a_run_and_the_same_run_again(run: Any, folder: Any, emulator: Emulator) -> None:
    report = await run(FOXES)
    assert (report.finished, report.total, report.complete) == (12, 12, True)
    assert report.spent == report.spent_in_all == emulator.ledger.spent == Decimal("0.48")
    assert folder.pictures() == [f"{number:06d}-fox-{number}.jpg" for number in range(12)]
    assert folder.others() == [".lock", "index.html", "journal.sqlite", "results.jsonl"]
    again = await run(FOXES)
    assert (again.finished, again.skipped, again.complete) == (0, 12, True)
    assert (again.spent, again.saved, again.spent_in_all) == (Decimal(0), Decimal("0.48"), Decimal("0.48"))
    assert emulator.ledger.accepted == 12
    assert len(folder.results()) == 12


async def test_results_have_what_a_script_needs(run: Any, folder: Any, emulator: Emulator) -> None:
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


async def test_equal_requests_are_as_many_pictures(run: Any, folder: Any, emulator: Emulator) -> None:
    await run(["fox"] * 3)
    assert [(row["occurrence"], row["position"]) for row in folder.rows()] == [(0, 0), (1, 1), (2, 2)]
    report = await run(["fox"] * 5)
    assert (report.finished, report.skipped) == (2, 3)
    assert emulator.ledger.accepted == len(folder.pictures()) == 5


async def test_changed_and_added_prompts_are_new_work(run: Any, folder: Any, emulator: Emulator) -> None:
    await run(["a", "b"])
    report = await run(["new", "a", {"prompt": "b", "seed": 1}])
    assert (report.finished, report.skipped, report.orphans) == (2, 1, 0)
    assert emulator.ledger.accepted == 4
    assert folder.pictures() == [
        "000000-a.jpg",
        "000000-new.jpg",
        "000001-b.jpg",
        "000002-b.jpg",
    ]


async def test_a_picture_never_goes_over_another(run: Any, folder: Any) -> None:
    await run(["a fox"], name="{slug}.{ext}")
    await run(["a fox", "a fox", "A FOX!"], name="{slug}.{ext}")
    assert len(folder.pictures()) == 3
    assert len({row["files"] for row in folder.rows()}) == 3


@pytest.mark.parametrize("damage", ["gone", "cut", "other"])
async def test_a_missing_or_damaged_file_is_fetched_and_not_paid(
    run: Any, folder: Any, emulator: Emulator, damage: str
) -> None:
    await run(["fox", "wolf"])
    path = folder.path / "000000-fox.jpg"
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(whole[:-10] if damage == "cut" else b"x" * len(whole))
    report = await run(["fox", "wolf"])
    assert (report.fetched, report.skipped, report.saved) == (1, 1, Decimal("0.08"))
    assert path.read_bytes() == whole
    assert emulator.ledger.accepted == 2
    assert [line["completion"] for line in folder.results()] == sorted(row["completion"] for row in folder.rows())


async def test_accepted_tasks_are_taken_up(folder: Any) -> None:
    async with Emulator(service_time=0.6, pixels=256) as slow:
        async with KontextSession(slow.api_key, base_url=slow.base_url, settings=FAST) as session:
            run = BulkRun(session, folder.path)
            async with anyio.create_task_group() as group:
                group.start_soon(run.execute, FOXES[:4])
                while session.statistics().pending < 4:
                    await anyio.sleep(0.01)
                run.stop(0.05)
            assert (run.report.finished, run.report.left) == (0, 4)
        assert folder.states() == ["accepted"] * 4
        async with KontextSession(slow.api_key, base_url=slow.base_url, settings=FAST) as session:
            report = await BulkRun(session, folder.path).execute(FOXES[:3])
        assert (report.fetched, report.orphans, report.finished) == (3, 1, 0)
        assert report.saved == Decimal("0.12")
        assert len(folder.pictures()) == slow.ledger.accepted == 4


async def test_uncertain_requests_are_listed_and_resent_when_asked(run: Any, folder: Any, emulator: Emulator) -> None:
    emulator.faults.script("create", ["cut-after-accept"])
    first = await run(["fox", "wolf"], settings=ONE_AT_A_TIME)
    assert (first.finished, first.doubted, first.complete) == (1, 1, False)
    assert [(each.index, each.prompt) for each in first.uncertain] == [(0, "fox")]
    again = await run(["fox", "wolf"])
    assert (again.skipped, again.doubted) == (1, 1)
    assert emulator.ledger.accepted == 2
    resent = await run(["fox", "wolf"], resend_uncertain=True)
    assert (resent.finished, resent.skipped, resent.uncertain) == (1, 1, ())
    assert emulator.ledger.accepted == 3
    assert folder.rows()[0]["doubtful"] == 1


async def test_outcomes_name_the_uncertain(emulator: Emulator, folder: Any) -> None:
    emulator.faults.script("create", ["cut-after-accept"])
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=FAST) as session:
        for seen in ("Disconnected", "uncertain earlier"):
            (outcome,) = [each async for each in BulkRun(session, folder.path).outcomes(["fox"])]
            assert isinstance(outcome.error, SubmissionUncertain), seen
            assert outcome.request == KontextRequest("fox")
            assert not outcome.ok


async def test_failed_requests_are_listed_and_retried_when_asked(run: Any, folder: Any, emulator: Emulator) -> None:
    emulator.faults.script("create", ["failed-at-once", Fault(kind=FaultKind.HTTP_STATUS, status=422)])
    first = await run(["fox", "wolf", "bear"], settings=ONE_AT_A_TIME)
    assert (first.finished, first.failed) == (1, {"TaskFailed": 1, "RequestRejected": 1})
    again = await run(["fox", "wolf", "bear"])
    assert (again.skipped, again.failed) == (1, {"TaskFailed": 1, "RequestRejected": 1})
    assert [line["error"] and line["error"]["type"] for line in folder.results()] == [
        "TaskFailed",
        "RequestRejected",
        None,
    ]
    retried = await run(["fox", "wolf", "bear"], retry_failed=True)
    assert (retried.finished, retried.skipped, retried.failed) == (2, 1, {})
    assert sorted(line["state"] for line in folder.results()) == ["saved"] * 3, "earlier lines are replaced"


async def test_what_may_go_better_another_time_is_new_work(run: Any, folder: Any, emulator: Emulator) -> None:
    emulator.faults.set_rate("rate-limited", 1.0)
    settings = attrs.evolve(
        FAST, retries=Retries(attempts=2, backoff_initial=0.01, backoff_max=0.01, max_retry_after=0.01)
    )
    report = await run(["fox"], settings=settings)
    assert (report.failed, folder.states()) == ({"RateLimited": 1}, ["planned"])
    emulator.faults.clear()
    assert (await run(["fox"])).finished == 1


async def test_a_task_that_the_gateway_forgot_has_expired(run: Any, folder: Any, emulator: Emulator) -> None:
    await run(["fox", "wolf"])
    folder.change("UPDATE kontext_requests SET state = 'accepted', task_id = 'unknown', cost = NULL WHERE id = 1")
    report = await run(["fox", "wolf"])
    assert (report.failed, folder.states()) == ({"TaskNotFound": 1}, ["expired", "saved"])
    assert (await run(["fox", "wolf"])).failed == {"TaskNotFound": 1}
    assert emulator.ledger.accepted == 2
    assert (await run(["fox", "wolf"], retry_failed=True)).finished == 1


async def test_a_download_that_failed_is_fetched_later(run: Any, folder: Any, emulator: Emulator) -> None:
    emulator.faults.set_rate("url-expired", 1.0)
    report = await run(["fox"])
    assert (report.failed, folder.states(), report.spent) == ({"DownloadFailed": 1}, ["finished"], Decimal("0.04"))
    emulator.faults.clear()
    report = await run(["fox"])
    assert (report.fetched, report.saved, folder.states()) == (1, Decimal("0.04"), ["saved"])


async def test_several_pictures_of_one_task(run: Any, folder: Any, emulator: Emulator) -> None:
    emulator.faults.script("create", ["several-urls"])
    await run(["fox"])
    assert folder.results()[0]["files"] == folder.pictures() == [f"000000-fox-{number}.jpg" for number in (1, 2, 3)]
    assert (await run(["fox"])).skipped == 1


async def test_input_images_count_by_their_contents(run: Any, folder: Any, emulator: Emulator, tmp_path: Path) -> None:
    await run(["fox"])
    source = tmp_path / "in.jpg"
    source.write_bytes((folder.path / "000000-fox.jpg").read_bytes())
    edit = {"prompt": "dusk", "input_images": [source]}
    assert (await run([edit])).finished == 1
    copy = source.rename(tmp_path / "other.jpg")
    with copy.open("rb") as file:
        assert (await run([{"prompt": "dusk", "input_images": [file]}])).skipped == 1
    copy.write_bytes(copy.read_bytes() + b"\xff\xd9")
    assert (await run([{"prompt": "dusk", "input_images": [copy]}])).finished == 1
    assert emulator.ledger.accepted == 3


async def test_wrong_requests_are_outcomes(run: Any, folder: Any) -> None:
    report = await run(["fox", " ", {"prompt": "x", "input_images": ["gone.png"]}, 7])
    assert (report.finished, report.failed, report.total) == (1, {"InvalidRequest": 3}, 4)
    assert len(folder.rows()) == 1


async def test_an_iterable_that_raises_has_its_outcomes_first(emulator: Emulator, folder: Any) -> None:
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
            assert run.report.finished + run.report.skipped == 1
    assert emulator.ledger.accepted == 1


async def test_an_async_iterable_is_not_waited_for_in_vain(emulator: Emulator, folder: Any) -> None:
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


async def test_requests_must_be_an_iterable(run: Any) -> None:
    with pytest.raises(InvalidRequest):
        await run("a fox")


async def test_leaving_early_leaves_a_journal_that_goes_on(emulator: Emulator, folder: Any, run: Any) -> None:
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=FAST) as session:
        bulk = BulkRun(session, folder.path)
        async with aclosing(bulk.outcomes(FOXES)) as outcomes:
            async for _ in outcomes:
                break
    accepted = emulator.ledger.accepted
    report = await run(FOXES)
    assert report.finished + report.fetched + report.skipped == 12
    assert emulator.ledger.accepted == 12 >= accepted
    assert emulator.ledger.billed_twice == {}


async def test_reading_is_lazy_and_bounded(emulator: Emulator, folder: Any) -> None:
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
            assert read <= 256
            break


async def test_stopping_submits_nothing_more_and_saves_what_is_in_flight(folder: Any) -> None:
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
        assert (report.finished, slow.ledger.accepted) == (3, 3)
        assert report.left == report.total - 3
        assert "was asked to stop" in str(report.stopped)
        assert set(folder.states()) == {"saved", "planned"}


async def test_a_refused_key_stops_at_once(emulator: Emulator, folder: Any) -> None:
    async with KontextSession("wrong-key", base_url=emulator.base_url, settings=ONE_AT_A_TIME) as session:
        report = await BulkRun(session, folder.path).execute(FOXES)
    assert type(report.stopped).__name__ == "AuthenticationFailed"
    assert report.failed.keys() == {"AuthenticationFailed"}
    assert report.left >= 10
    assert set(folder.states()) == {"planned"}


async def test_a_second_run_is_refused(emulator: Emulator, folder: Any) -> None:
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=FAST) as session:
        async with aclosing(BulkRun(session, folder.path).outcomes(FOXES)) as outcomes:
            await anext(outcomes)
            with pytest.raises(RunLocked, match=r"another run is at work in .*out \(process \d+\)") as caught:
                await BulkRun(session, folder.path).execute(FOXES)
        assert caught.value.pid is not None
        assert (await BulkRun(session, folder.path).execute(FOXES)).complete


async def test_a_session_must_be_open(emulator: Emulator, folder: Any) -> None:
    session = KontextSession(emulator.api_key, base_url=emulator.base_url)
    run = BulkRun(session, folder.path)
    with pytest.raises(SessionClosed):
        await run.execute(FOXES)
    with pytest.raises(ConfigurationError, match="no report"):
        _ = run.report
    assert not folder.path.exists()


async def test_a_session_that_is_closed_ends_the_run(emulator: Emulator, folder: Any, run: Any) -> None:
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=ONE_AT_A_TIME) as session:
        bulk = BulkRun(session, folder.path)

        async def close_it() -> None:
            async for _ in bulk.outcomes(FOXES):
                await session.aclose()

        with pytest.raises(SessionClosed):
            await close_it()
    report = await run(FOXES)
    assert report.finished + report.fetched + report.skipped + report.doubted == 12
    assert emulator.ledger.billed_twice == {}


@pytest.mark.parametrize("limit", ["0", "-1", "NaN", "Infinity"])
async def test_a_limit_must_be_money(limit: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="max_cost"):
        BulkRun(KontextSession("key"), tmp_path, max_cost=Decimal(limit))


async def test_a_directory_that_cannot_be_made(run: Any, folder: Any, emulator: Emulator) -> None:
    folder.path.write_text("a file")
    with pytest.raises(RunRefused, match="cannot be made"):
        await run(FOXES)
    assert emulator.ledger.entries == ()
