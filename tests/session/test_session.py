"""A session against the emulator, over real HTTP."""

from __future__ import annotations

import asyncio
import io
import warnings
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import aiohttp
import anyio
import attrs
import pytest
from PIL import Image

from kontext_async import (
    AuthenticationFailed,
    ConfigurationError,
    GatewayUnavailable,
    Generation,
    InvalidRequest,
    KontextRequest,
    KontextSession,
    Limits,
    Outcome,
    PermissionDenied,
    Polling,
    RequestRejected,
    SessionClosed,
    Settings,
    TaskFailed,
    TaskNotFound,
    TaskState,
    TaskTimeout,
    Timeouts,
)
from kontext_async.emulator import Emulator, Fault, FaultKind, Faults
from kontext_async.events import Accepted, Completed, Downloaded, Event, StatusReceived, Submitting
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.anyio


def a_png(colour: str = "red") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (20, 10), colour).save(buffer, "PNG")
    return buffer.getvalue()


async def test_one_picture(session: KontextSession, emulator: Emulator, events: list[Event], tmp_path: Path) -> None:
    fox = await session.generate("a red fox in snow", aspect_ratio="16:9", seed=7, output_format="png")
    assert fox.request == KontextRequest("a red fox in snow", aspect_ratio="16:9", seed=7, output_format="png")
    assert fox.usage.cost == Decimal("0.04")
    assert fox.model == "flux_kontext_pro"
    assert fox.created_at is not None
    assert 0 < fox.elapsed < 5
    assert fox.task_id in emulator.ledger.task_ids
    path = await session.save(fox.images[0], tmp_path / "new" / "fox.png")
    assert path == tmp_path / "new" / "fox.png"
    with Image.open(path) as picture:
        assert picture.format == "PNG"
        assert pytest.approx(picture.width / picture.height, rel=0.1) == 16 / 9
    assert [type(event) for event in events if not isinstance(event, StatusReceived)] == [
        Submitting,
        Accepted,
        Completed,
        Downloaded,
    ]
    assert {event.fingerprint for event in events[:-1]} == {events[0].fingerprint}
    assert session.statistics().spent == Decimal("0.04")
    assert session.statistics().in_flight == session.statistics().pending == 0


async def test_what_is_sent_identifies_the_client(session: KontextSession, emulator: Emulator) -> None:
    fox = await session.generate("a red fox")
    await session.read(fox.images[0])
    assert {record.headers["Authorization"] for record in emulator.requests if record.origin == "api"} == {
        f"Bearer {emulator.api_key}"
    }
    assert all(record.headers["User-Agent"].startswith("kontext_async/") for record in emulator.requests)


async def test_the_key_goes_to_the_api_and_nowhere_else(session: KontextSession, emulator: Emulator) -> None:
    fox = await session.generate("a red fox")
    emulator.faults.script("download", [FaultKind.REDIRECT])
    emulator.faults.script("status", [FaultKind.REDIRECT])
    await session.read(fox.images[0])
    await session.attach(fox.task_id).wait(5)
    emulator.faults.script("create", [FaultKind.REDIRECT])
    with pytest.raises(RequestRejected) as caught:
        await session.generate("never sent elsewhere")
    assert caught.value.status == 307
    elsewhere = [record for record in emulator.requests if record.origin != "api"]
    assert elsewhere
    assert not any("Authorization" in record.headers for record in elsewhere)


@pytest.mark.parametrize("kind", ["path", "str", "bytes", "bytearray", "memoryview", "file", "data", "pillow", "url"])
async def test_every_source_of_an_input_image(
    kind: str, session: KontextSession, emulator: Emulator, tmp_path: Path
) -> None:
    png = a_png()
    (tmp_path / "in.png").write_bytes(png)
    sources: dict[str, Callable[[], Any]] = {
        "path": lambda: tmp_path / "in.png",
        "str": lambda: str(tmp_path / "in.png"),
        "bytes": lambda: png,
        "bytearray": lambda: bytearray(png),
        "memoryview": lambda: memoryview(png),
        "file": lambda: io.BytesIO(png),
        "data": lambda: "data:image/png;base64," + __import__("base64").b64encode(png).decode(),
        "pillow": lambda: Image.open(io.BytesIO(png)),
        "url": lambda: "https://example.com/in.png",
    }
    edit = await session.generate("make it dusk", input_images=[sources[kind]()])
    assert edit.request is not None
    assert len(edit.request.input_images) == 1
    assert emulator.ledger.accepted == 1


async def test_four_images_are_taken_and_a_bad_one_is_refused_before_anything_is_sent(
    session: KontextSession, emulator: Emulator, tmp_path: Path
) -> None:
    await session.generate("all of them", input_images=[a_png(c) for c in ("red", "green", "blue", "white")])
    (tmp_path / "notes.png").write_text("not a picture")
    seen = len(emulator.requests)
    cases: list[list[Any]] = [[a_png(), tmp_path / "missing.png"], [a_png(), tmp_path / "notes.png"], [tmp_path]]
    for wrong in cases:
        with pytest.raises(InvalidRequest) as caught:
            await session.generate("edit", input_images=wrong)
        assert caught.value.field == f"input_images[{len(wrong) - 1}]"
    with pytest.raises(InvalidRequest):
        await session.generate("edit", input_images=[a_png()] * 5)
    assert len(emulator.requests) == seen


async def test_an_image_over_the_limit_is_refused(emulator: Emulator, tmp_path: Path) -> None:
    png = a_png()
    (tmp_path / "in.png").write_bytes(png)
    for limit, fits in ((len(png), True), (len(png) - 1, False)):
        settings = Settings(limits=Limits(max_image_bytes=limit), polling=FAST.polling)
        async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings) as session:
            if fits:
                assert (await session.generate("edit", input_images=[tmp_path / "in.png"])).images
            else:
                with pytest.raises(InvalidRequest, match="at most"):
                    await session.generate("edit", input_images=[tmp_path / "in.png"])


async def test_a_binary_file_can_be_used_for_many(session: KontextSession, emulator: Emulator) -> None:
    file = io.BytesIO(a_png())
    outcomes = await session.generate_all({"prompt": f"edit {n}", "input_images": [file]} for n in range(12))
    assert all(outcome.ok for outcome in outcomes)
    assert emulator.ledger.billed == 12


async def test_submit_now_and_attach_later(session: KontextSession, emulator: Emulator) -> None:
    task = await session.submit("a blue fox", seed=1)
    assert task.id in emulator.ledger.task_ids
    assert task.request == KontextRequest("a blue fox", seed=1)
    assert task.id in repr(task)
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=FAST) as other:
        attached = other.attach(task.id)
        assert attached.request is None
        fox = await attached.wait(timeout=5)
        assert fox.request is None
        assert await attached.wait() is fox
    assert (await task.wait()).images[0].url.partition("?")[0] == fox.images[0].url.partition("?")[0]


async def test_waiters_of_one_id_share_its_polls(session: KontextSession, emulator: Emulator) -> None:
    task = await session.submit("shared")
    fox, *others = await asyncio.gather(task.wait(), *(session.attach(task.id).wait() for _ in range(20)))
    assert all(other == fox for other in others)
    asked = sum(record.path.endswith(task.id) for record in emulator.requests)
    assert asked == session.statistics().polls < 20


async def test_status_asks_once_now(session: KontextSession, emulator: Emulator) -> None:
    emulator.faults.script("create", [FaultKind.TASK_HANGS])
    task = await session.submit("hangs")
    status = await task.status()
    assert status.state is TaskState.IN_PROGRESS
    assert status.task_id == task.id
    with pytest.raises(TaskNotFound):
        await session.attach("unknown-id").status()


async def test_updates_end_with_the_terminal_status(emulator: Emulator, session: KontextSession) -> None:
    done = [status async for status in (await session.submit("a fox")).updates()]
    assert done[-1].state is TaskState.COMPLETED
    assert all(not status.state.is_terminal for status in done[:-1])
    emulator.faults.script("create", [Fault(kind=FaultKind.TASK_FAILS, code="7", message="too dark")])
    failed = [status async for status in (await session.submit("a fox")).updates()]
    assert failed[-1].state is TaskState.FAILED
    assert failed[-1].error is not None
    assert failed[-1].error.message == "too dark"
    again = [status async for status in session.attach(done[-1].task_id).updates()]
    assert again[-1].state is TaskState.COMPLETED


async def test_updates_of_an_unknown_task_raise(session: KontextSession) -> None:
    with pytest.raises(TaskNotFound):
        async for _ in session.attach("unknown-id").updates():
            pass


async def test_answers_that_are_finished_at_once_are_not_polled(session: KontextSession, emulator: Emulator) -> None:
    emulator.faults.script("create", [FaultKind.COMPLETED_AT_ONCE, FaultKind.FAILED_AT_ONCE])
    assert (await session.generate("at once")).images
    with pytest.raises(TaskFailed) as caught:
        await session.generate("at once, but not")
    assert caught.value.task_id in emulator.ledger.task_ids
    assert session.statistics().polls == 0
    assert session.statistics().in_flight == 0


async def test_a_failed_task_says_why(session: KontextSession, emulator: Emulator) -> None:
    emulator.faults.script("create", [Fault(kind=FaultKind.TASK_FAILS, code="002014001", message="too dark")])
    with pytest.raises(TaskFailed, match="too dark") as caught:
        await session.generate("a fox at night")
    assert caught.value.code == "002014001"
    assert caught.value.may_be_charged


async def test_an_unknown_task_is_given_a_grace_period(session: KontextSession, emulator: Emulator) -> None:
    emulator.faults.script("create", [Fault(kind=FaultKind.TASK_LATE, seconds=0.1)])
    assert (await session.generate("known a little later")).images
    emulator.faults.script("create", [FaultKind.TASK_VANISHES])
    with pytest.raises(TaskNotFound) as caught:
        await session.generate("never known")
    assert caught.value.task_id
    assert session.statistics().in_flight == 0


async def test_a_timeout_keeps_the_id_and_attach_takes_it_up(session: KontextSession, emulator: Emulator) -> None:
    emulator.faults.script("create", [FaultKind.TASK_HANGS])
    with pytest.raises(TaskTimeout) as caught:
        await session.generate("hangs", timeout=0.2)
    error = caught.value
    assert error.task_id in emulator.ledger.task_ids
    assert error.last_status is not None
    assert error.waited >= 0.2
    assert error.task_id is not None
    with pytest.raises(TaskTimeout):
        await session.attach(error.task_id).wait(timeout=0.05)


async def test_a_slot_is_held_until_the_task_is_finished(emulator: Emulator, until: Callable[..., Any]) -> None:
    settings = Settings(limits=Limits(max_in_flight=1), polling=FAST.polling, timeouts=Timeouts(wait=0.3))
    emulator.faults.script("create", [FaultKind.TASK_HANGS])
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings) as session:
        hanging = await session.submit("hangs")
        second = asyncio.create_task(session.generate("second"))
        await until(lambda: session.statistics().queued == 1)
        assert session.statistics().in_flight == 1
        assert (await second).images  # once nobody may wait for the first any longer, it gives way
        with pytest.raises(TaskTimeout):
            await hanging.wait(0.05)


@pytest.mark.parametrize(
    ("emulator_options", "expected"),
    [
        ({"balance": Decimal("0.01")}, PermissionDenied),
        ({"api_key": "another"}, AuthenticationFailed),
    ],
)
async def test_a_refused_account(emulator: Emulator, expected: type[Exception]) -> None:
    async with KontextSession("emulator-key", base_url=emulator.base_url, settings=FAST) as session:
        with pytest.raises(expected) as caught:
            await session.generate("a fox")
        assert "emulator-key" not in str(caught.value) + repr(caught.value)
        assert session.statistics().submitted == 1
        assert session.statistics().in_flight == 0


async def test_a_key_that_is_refused_while_polling_fails_all_waiters(
    session: KontextSession, emulator: Emulator, until: Callable[..., Any]
) -> None:
    emulator.faults.set_rate(FaultKind.TASK_HANGS, 1)
    waits = [asyncio.create_task(session.generate(f"fox {n}")) for n in range(5)]
    await until(lambda: session.statistics().pending == 5)
    emulator.faults.script("status", [FaultKind.UNAUTHORIZED])
    errors = await asyncio.gather(*waits, return_exceptions=True)
    assert all(isinstance(error, AuthenticationFailed) for error in errors)
    assert len({error.task_id for error in errors if isinstance(error, AuthenticationFailed)}) == 5
    assert session.statistics().in_flight == 0


async def test_odd_answers_are_read(session: KontextSession, emulator: Emulator) -> None:
    odd = [FaultKind.ODD_STATUS, FaultKind.ODD_COST, FaultKind.ODD_PROGRESS, FaultKind.MILLISECONDS]
    odd += [FaultKind.EXTRA_KEYS, FaultKind.SEVERAL_URLS]
    for kind in odd:
        emulator.faults.clear()
        emulator.faults.set_rate(Fault(kind=kind, on=["status"]), 0.9)
        outcomes = await session.generate_all(f"{kind} {n}" for n in range(8))
        known = [outcome for outcome in outcomes if outcome.ok]
        assert len(known) == 8 or kind is FaultKind.ODD_STATUS  # "FAILED" is one of the odd words
        assert all(outcome.task_id for outcome in outcomes)


async def test_several_pictures_keep_their_order(session: KontextSession, emulator: Emulator, tmp_path: Path) -> None:
    emulator.faults.set_rate(Fault(kind=FaultKind.SEVERAL_URLS, on=["status"]), 1)
    fox = await session.generate("three foxes")
    assert len(fox.images) == 3
    paths = await session.save(fox, tmp_path / "fox.jpg")
    assert paths == [tmp_path / f"fox-{n}.jpg" for n in (1, 2, 3)]
    assert await session.save(fox, tmp_path) == [tmp_path / f"{fox.task_id}-{n}.jpg" for n in (1, 2, 3)]


async def test_a_completed_task_without_a_picture_is_a_failure(session: KontextSession, emulator: Emulator) -> None:
    emulator.faults.set_rate(Fault(kind=FaultKind.ODD_OUTPUT, on=["status"], variant="empty"), 1)
    with pytest.raises(TaskFailed, match="without a picture"):
        await session.generate("nothing")


async def test_bad_fields_are_refused_before_a_byte_is_sent(session: KontextSession, emulator: Emulator) -> None:
    wrong: list[dict[str, Any]] = [{"aspect_ratio": "22:9"}, {"seed": True}, {"safety_tolerance": 7}]
    for fields in wrong:
        with pytest.raises(InvalidRequest) as caught:
            await session.generate("a fox", **fields)
        assert caught.value.field in fields
    for prompt in ("  ", {"prompt": "x", "aspect": "1:1"}, 7):
        with pytest.raises(InvalidRequest):
            await session.generate(prompt)  # type: ignore[arg-type]
    with pytest.raises(InvalidRequest):
        session.attach("")
    for timeout in (0, -1, float("nan"), float("inf"), True, "1"):
        with pytest.raises(InvalidRequest):
            await session.generate("a fox", timeout=timeout)  # type: ignore[arg-type]
    assert not emulator.requests


class TestManyRequests:
    async def test_outcomes_come_as_completed_and_none_is_lost(
        self, session: KontextSession, emulator: Emulator
    ) -> None:
        seen = [outcome async for outcome in session.generate_many(f"fox {n}" for n in range(100))]
        assert sorted(outcome.index for outcome in seen) == list(range(100))
        assert all(
            outcome.ok and outcome.request and outcome.request.prompt == f"fox {outcome.index}" for outcome in seen
        )
        assert emulator.ledger.billed == 100
        assert not emulator.ledger.billed_twice

    async def test_generate_all_keeps_the_order(self, session: KontextSession) -> None:
        outcomes = await session.generate_all(["a", {"prompt": "b", "seed": 3}, KontextRequest("c")])
        assert [outcome.request and outcome.request.prompt for outcome in outcomes] == ["a", "b", "c"]

    async def test_one_bad_item_is_an_outcome(self, session: KontextSession, emulator: Emulator) -> None:
        outcomes = await session.generate_all(["a", "", {"prompt": "c", "seed": "x"}, "d"])
        assert [outcome.ok for outcome in outcomes] == [True, False, False, True]
        assert isinstance(outcomes[1].error, InvalidRequest)
        assert outcomes[1].request is None
        assert emulator.ledger.accepted == 2

    async def test_an_async_iterable_is_read(self, session: KontextSession) -> None:
        async def prompts() -> AsyncIterator[str]:
            for n in range(10):
                await asyncio.sleep(0)
                yield f"fox {n}"

        assert len([outcome async for outcome in session.generate_many(prompts()) if outcome.ok]) == 10

    async def test_nothing_in_is_nothing_out(self, session: KontextSession) -> None:
        assert await session.generate_all([]) == []

    @pytest.mark.parametrize("wrong", ["a prompt", {"prompt": "x"}, 7, None])
    async def test_what_is_no_iterable_of_requests_is_refused(self, session: KontextSession, wrong: Any) -> None:
        with pytest.raises(InvalidRequest):
            await session.generate_all(wrong)

    async def test_reading_is_lazy_and_bounded_by_a_slow_consumer(
        self, emulator: Emulator, until: Callable[..., Any]
    ) -> None:
        settings = Settings(limits=Limits(max_in_flight=3, polls_per_second=2000), polling=FAST.polling)
        read = 0

        def prompts() -> Iterator[str]:
            nonlocal read
            while True:  # for ever
                read += 1
                yield f"fox {read}"

        async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings) as session:
            outcomes = session.generate_many(prompts())
            await anext(outcomes)
            await until(lambda: session.statistics().completed >= 6)
            await until(lambda: session.statistics().in_flight == 0)
            assert read == 7  # twice the slots, and one was handed out
            assert session.statistics().submitted == 7
            await anext(outcomes)
            await until(lambda: read == 8)
            await outcomes.aclose()

    async def test_the_iterables_own_error_comes_after_the_outcomes(self, session: KontextSession) -> None:
        def prompts() -> Iterator[str]:
            yield "one"
            yield "two"
            raise LookupError("the third is gone")

        seen: list[Outcome] = []

        async def read() -> None:
            async for outcome in session.generate_many(prompts()):
                seen.append(outcome)  # noqa: PERF401 # a comprehension would lose them

        with pytest.raises(LookupError, match="third"):
            await read()
        assert [outcome.ok for outcome in seen] == [True, True]

    async def test_fail_fast_raises_the_first_error(self, session: KontextSession, emulator: Emulator) -> None:
        with pytest.raises(InvalidRequest):
            async for _ in session.generate_many(["", "b", "c"], fail_fast=True):
                pass
        assert emulator.ledger.billed_twice == {}

    async def test_two_batches_and_single_calls_share_the_slots(self, session: KontextSession) -> None:
        one, two, three = await asyncio.gather(
            session.generate_all(f"a {n}" for n in range(30)),
            session.generate_all(f"b {n}" for n in range(30)),
            session.generate("c"),
        )
        assert all(outcome.ok for outcome in one + two)
        assert isinstance(three, Generation)

    @pytest.mark.parametrize("emulator_options", [{"max_tasks": 4, "service_time": 0.03, "pixels": 4096}])
    async def test_the_scheduler_finds_what_the_account_bears(
        self, session: KontextSession, emulator: Emulator
    ) -> None:
        outcomes = await session.generate_all(f"fox {n}" for n in range(60))
        assert all(outcome.ok for outcome in outcomes)
        assert emulator.ledger.billed == 60
        assert session.statistics().limit <= 8
        assert emulator.ledger.refused < 60

    async def test_a_pause_holds_for_every_submit(self, session: KontextSession, emulator: Emulator) -> None:
        emulator.faults.script("create", [Fault(kind=FaultKind.RATE_LIMITED, retry_after=0.3)])
        loop = asyncio.get_running_loop()
        began = loop.time()
        first = asyncio.create_task(session.generate("refused"))
        while not session.statistics().throttled:
            await asyncio.sleep(0)
        await session.generate("waits, too")
        assert loop.time() - began >= 0.3
        await first


class TestLifetime:
    async def test_before_start_after_close_and_twice(self, emulator: Emulator) -> None:
        session = KontextSession(emulator.api_key, base_url=emulator.base_url)
        with pytest.raises(SessionClosed, match="not started"):
            await session.generate("a fox")
        with pytest.raises(SessionClosed, match="not started"):
            session.attach("id")
        assert "not running" in repr(session)
        await session.start()
        assert "not running" not in repr(session)
        with pytest.raises(SessionClosed, match="started before"):
            await session.start()
        await session.aclose()
        await session.aclose()
        for use in (session.generate("a fox"), session.submit("a fox"), session.generate_all(["a fox"])):
            with pytest.raises(SessionClosed, match="is closed"):
                await use
        with pytest.raises(SessionClosed, match="started before"):
            await session.start()

    async def test_closing_what_was_never_started(self) -> None:
        await KontextSession("key").aclose()

    async def test_on_another_loop(self, session: KontextSession) -> None:
        def elsewhere() -> None:
            async def use() -> None:
                await session.generate("a fox")

            with pytest.raises(SessionClosed, match="another event loop"):
                anyio.run(use)
            with pytest.raises(SessionClosed, match="another event loop"):
                anyio.run(session.aclose)

        await anyio.to_thread.run_sync(elsewhere)
        assert (await session.generate("still works")).images

    async def test_started_and_closed_in_different_tasks(self, emulator: Emulator) -> None:
        session = KontextSession(emulator.api_key, base_url=emulator.base_url, settings=FAST)
        await asyncio.create_task(session.start())
        assert (await asyncio.create_task(session.generate("a fox"))).images
        await asyncio.create_task(session.aclose())
        other = KontextSession(emulator.api_key, base_url=emulator.base_url, settings=FAST)
        async with anyio.create_task_group() as group:
            group.start_soon(other.start)
        assert (await other.generate("a fox")).images
        await other.aclose()

    async def test_closing_tells_waiters_and_keeps_the_ids(self, emulator: Emulator, until: Callable[..., Any]) -> None:
        emulator.faults.set_rate(FaultKind.TASK_HANGS, 1)
        settings = Settings(limits=Limits(max_in_flight=2), polling=FAST.polling)
        session = await KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings).start()
        waits = [asyncio.create_task(session.generate(f"fox {n}")) for n in range(3)]
        many = asyncio.create_task(session.generate_all(["x", "y"]))
        await until(lambda: session.statistics().pending == 2)
        await session.aclose()
        errors = await asyncio.gather(*waits, return_exceptions=True)
        assert all(isinstance(error, SessionClosed) for error in errors)
        ids = {error.task_id for error in errors if isinstance(error, SessionClosed)}
        assert ids == {*emulator.ledger.task_ids, None}
        assert all(isinstance(outcome.error, SessionClosed) for outcome in await many)

    @pytest.mark.parametrize("what", ["pop_due", "wake_at"])
    async def test_a_crash_reaches_every_waiter(
        self,
        session: KontextSession,
        emulator: Emulator,
        until: Callable[..., Any],
        monkeypatch: pytest.MonkeyPatch,
        what: str,
    ) -> None:
        emulator.faults.set_rate(FaultKind.TASK_HANGS, 1)
        waits = [asyncio.create_task(session.generate(f"fox {n}")) for n in range(3)]
        many = asyncio.create_task(session.generate_all(["x", "y"]))
        await until(lambda: session.statistics().pending == 5)

        def broken(*_: object) -> None:
            raise ZeroDivisionError("a bug")

        monkeypatch.setattr(session._engine.poll_loop._queue, what, broken)
        errors = await asyncio.gather(*waits, return_exceptions=True)
        for error in errors:
            assert isinstance(error, SessionClosed)
            assert isinstance(error.__cause__, ZeroDivisionError)
            assert error.task_id
            assert error.may_be_charged
        assert all(isinstance(outcome.error, SessionClosed) and outcome.task_id for outcome in await many)
        with pytest.raises(SessionClosed, match="crashed"):
            await session.generate("after the crash")

    async def test_an_idle_session_wakes_nobody(self, session: KontextSession, until: Callable[..., Any]) -> None:
        await session.generate("a fox")
        await until(lambda: session._engine.poll_loop._workers._timer is None)
        assert session.statistics().pending == 0

    async def test_the_loop_starts_with_the_first_task(self, session: KontextSession) -> None:
        def loops() -> int:
            return sum("PollLoop._worker" in repr(task) for task in asyncio.all_tasks())

        assert loops() == 0
        await asyncio.gather(session.generate("a fox"), session.generate("another"))
        assert 1 <= loops() <= 2, "as many as there were asks at once"

    async def test_a_session_that_is_dropped_warns(self, emulator: Emulator) -> None:
        session = await KontextSession(emulator.api_key, base_url=emulator.base_url).start()
        engine = session._engine
        with pytest.warns(ResourceWarning, match="never closed"):
            del session
        await engine.aclose()

    async def test_the_users_own_pool_is_used_and_not_closed(self, emulator: Emulator) -> None:
        async with aiohttp.ClientSession(headers={"X-Mine": "1"}) as http:
            async with KontextSession(
                emulator.api_key, base_url=emulator.base_url, settings=FAST, http=http
            ) as session:
                fox = await session.generate("a fox")
                assert await session.read(fox.images[0])
            assert not http.closed
        late = KontextSession(emulator.api_key, base_url=emulator.base_url, http=http)
        with pytest.raises(ConfigurationError, match="closed"):
            await late.start()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of newer aiohttp; users may have it all the same
            with_auth = aiohttp.ClientSession(auth=aiohttp.BasicAuth("a", "b"))
        async with with_auth:
            wrong = KontextSession(emulator.api_key, base_url=emulator.base_url, http=with_auth)
            with pytest.raises(ConfigurationError, match="auth"):
                await wrong.start()

    async def test_the_users_pool_is_closed_under_the_session(self, emulator: Emulator) -> None:
        http = aiohttp.ClientSession()
        async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=FAST, http=http) as session:
            await http.close()
            with pytest.raises(SessionClosed, match="pool"):
                await session.generate("a fox")

    async def test_configuration_comes_from_the_environment(
        self, emulator: Emulator, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.delenv("KONTEXT_API_KEY", raising=False)
        with pytest.raises(ConfigurationError, match="KONTEXT_API_KEY"):
            KontextSession()
        monkeypatch.setenv("KONTEXT_API_KEY", emulator.api_key or "")
        monkeypatch.setenv("KONTEXT_BASE_URL", emulator.base_url)
        async with KontextSession(settings=FAST) as session:
            assert (await session.generate("a fox")).images
            assert str(emulator.api_key) not in repr(session)

    async def test_no_task_is_left_after_close(self, emulator: Emulator) -> None:
        before = asyncio.all_tasks()
        async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=FAST) as session:
            await session.generate_all(f"fox {n}" for n in range(20))
            outcomes = session.generate_many(f"fox {n}" for n in range(20))
            await anext(outcomes)
            await outcomes.aclose()
        ours = {task for task in asyncio.all_tasks() - before if "RequestHandler" not in repr(task)}
        assert not ours


class TestListeners:
    async def test_a_listener_that_raises_disturbs_nobody(self, session: KontextSession, events: list[Event]) -> None:
        contexts: list[dict[str, Any]] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))

        def broken(_: Event) -> None:
            raise ZeroDivisionError

        unsubscribe = session.subscribe(broken)
        assert (await session.generate("a fox")).images
        told = len(contexts)
        assert told
        assert events
        unsubscribe()
        unsubscribe()
        await session.generate("a fox")
        assert len(contexts) == told


async def test_polls_stay_under_the_cap(emulator: Emulator) -> None:
    settings = Settings(
        limits=Limits(max_in_flight=50, polls_per_second=40),
        polling=Polling(initial_delay=0.0, interval=0.01, min_interval=0.01),
    )
    emulator.faults.set_rate(FaultKind.TASK_HANGS, 1)
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings) as session:
        for n in range(30):
            await session.submit(f"fox {n}")
        loop = asyncio.get_running_loop()
        began, asked = loop.time(), session.statistics().polls
        with pytest.raises(TaskTimeout):
            await (await session.submit("one more")).wait(1.0)
        took = loop.time() - began
        assert session.statistics().polls - asked <= 40 * (took + 0.1) + 1


async def test_faults_of_every_kind_at_once_lose_nothing(session: KontextSession, emulator: Emulator) -> None:
    emulator.faults.rates = {
        Fault(kind=FaultKind.CUT, on=["status"]): 0.1,
        Fault(kind=FaultKind.HTTP_STATUS, on=["status"], status=500): 0.1,
        Fault(kind=FaultKind.BAD_GATEWAY, on=["status"]): 0.05,
        Fault(kind=FaultKind.TRUNCATED_JSON, on=["status"]): 0.05,
        Fault(kind=FaultKind.SHORT_BODY, on=["status"]): 0.05,
        Fault(kind=FaultKind.MALFORMED_JSON, on=["status"]): 0.05,
        Fault(kind=FaultKind.EMPTY_BODY, on=["status"]): 0.05,
        Fault(kind=FaultKind.HTML_PAGE, on=["status"]): 0.05,
    }
    outcomes = await session.generate_all(f"fox {n}" for n in range(100))
    assert all(outcome.ok for outcome in outcomes)
    assert emulator.ledger.billed == 100


def test_the_exports_are_what_they_say() -> None:
    import kontext_async

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for name in kontext_async.__all__:
            assert getattr(kontext_async, name) is not None
    assert isinstance(Faults(), Faults)


@pytest.mark.parametrize("emulator_options", [{"service_time": 0.0, "api_key": "a"}, {"service_time": 0.0}])
async def test_an_echoed_key_is_blotted_out_of_errors_and_of_nothing_else(emulator: Emulator) -> None:
    key = str(emulator.api_key)
    echo = f'{{"error": "key {key} is not welcome"}}'
    async with KontextSession(key, base_url=emulator.base_url, settings=FAST) as session:
        emulator.faults.script("create", [Fault(kind=FaultKind.HTTP_STATUS, status=400, text=echo)])
        with pytest.raises(RequestRejected) as caught:
            await session.generate("a fox")
        for text in (str(caught.value), caught.value.body or ""):
            assert f"key {key} is" not in text
            assert "***" in text
        assert (await session.generate("a fox")).task_id in emulator.ledger.task_ids


async def test_what_is_attached_is_paid_for_once(session: KontextSession, emulator: Emulator) -> None:
    fox = await session.generate("a fox")
    for _ in range(2):
        await session.attach(fox.task_id).status()
        await session.attach(fox.task_id).wait()
    await session.read(fox.images[0])
    assert session.statistics().spent == emulator.ledger.spent == Decimal("0.04")


async def test_a_failure_while_nobody_listens_is_not_waited_for_for_ever(
    session: KontextSession, emulator: Emulator, until: Callable[..., Any]
) -> None:
    emulator.faults.script("create", [FaultKind.TASK_HANGS])
    updates = (await session.submit("a fox")).updates()
    await anext(updates)
    emulator.faults.set_rate(Fault(kind=FaultKind.UNAUTHORIZED, on=["status"]), 1)
    await until(lambda: session.statistics().failed)
    with pytest.raises(AuthenticationFailed):
        await anext(updates)


async def test_an_item_that_raises_while_it_is_read_is_an_outcome(session: KontextSession) -> None:
    def broken() -> Iterator[bytes]:
        raise ZeroDivisionError("a bug of theirs")
        yield b""

    first, second = await session.generate_all([{"prompt": "a", "input_images": broken()}, "b"])
    assert isinstance(first.error, InvalidRequest)
    assert isinstance(first.error.__cause__, ZeroDivisionError)
    assert second.ok


@pytest.mark.parametrize("emulator_options", [{"service_time": 0.02, "pixels": 4096}])
async def test_finishing_one_task_by_hand_does_not_stop_the_loop(emulator: Emulator) -> None:
    """With one ask at a time, a task that is seen finished meanwhile must not take the loop's turn with it."""
    settings = attrs.evolve(FAST, limits=Limits(max_polls_in_flight=1, polls_per_second=2000))
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings) as session:
        one, other = await session.submit("one"), await session.submit("other")
        emulator.faults.script("status", [Fault(kind=FaultKind.SLOW, seconds=0.2), None])
        waiting = asyncio.create_task(other.wait(5))
        while not session.statistics().polls_in_flight:
            await asyncio.sleep(0)
        for _ in range(20):
            await one.status()
        assert (await waiting).images


async def test_a_wait_begins_with_a_clean_sheet(emulator: Emulator) -> None:
    settings = attrs.evolve(FAST, retries=attrs.evolve(FAST.retries, failure_budget=0.1))
    emulator.faults.script("create", [FaultKind.TASK_HANGS])
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=settings) as session:
        task = await session.submit("a fox")
        emulator.faults.set_rate(Fault(kind=FaultKind.HTTP_STATUS, on=["status"], status=500), 1)
        for _ in range(2):
            began = asyncio.get_running_loop().time()
            with pytest.raises(GatewayUnavailable):
                await task.wait(5)
            assert asyncio.get_running_loop().time() - began >= 0.1


async def test_a_start_that_is_cancelled_leaves_nothing(emulator: Emulator) -> None:
    before = asyncio.all_tasks()
    session = KontextSession(emulator.api_key, base_url=emulator.base_url)
    starting = asyncio.create_task(session.start())
    await asyncio.sleep(0)
    starting.cancel()
    await asyncio.wait([starting])
    for _ in range(20):
        await asyncio.sleep(0)
    assert not [task for task in asyncio.all_tasks() - before if "session" in task.get_name()]


async def test_what_was_said_last_is_known_from_acceptance_on(session: KontextSession, emulator: Emulator) -> None:
    emulator.faults.script("create", [FaultKind.TASK_HANGS])
    task = await session.submit("a fox")
    assert task.last_status is not None
    assert task.last_status.task_id == task.id
    assert "in_progress" in repr(task)
    asked = await task.status()
    assert task.last_status == asked
    assert session.attach(task.id).last_status == asked


async def test_events_of_a_request_with_and_without_images_name_the_same_fingerprint(
    session: KontextSession,
) -> None:
    seen: dict[str | None, set[type]] = {}
    session.subscribe(lambda event: seen.setdefault(event.fingerprint, set()).add(type(event)))
    await session.generate("a fox")
    await session.generate("a fox", input_images=[a_png("red")])
    assert len(seen) == 2
    assert all({Submitting, Accepted, StatusReceived, Completed} <= kinds for kinds in seen.values())


def test_it_needs_nothing_but_asyncio() -> None:
    """Under `asyncio.run` a timer's callback belongs to no task, and nothing tells anyio which library it runs on."""

    async def main() -> list[Outcome]:
        async with (
            Emulator(service_time=0.05, pixels=4096) as emulator,
            KontextSession(emulator.api_key, base_url=emulator.base_url, settings=FAST) as session,
        ):
            return await session.generate_all(f"fox {n}" for n in range(20))

    assert all(outcome.ok for outcome in asyncio.run(main()))
