"""`KontextSession.generate` against the emulator: one request, one image."""

from __future__ import annotations

import asyncio
import base64
import io
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import attrs
import pytest
from PIL import Image
from session_support import count_creates, encode_png, new_session, until

from kontext_async import (
    AuthenticationFailed,
    InvalidRequest,
    KontextRequest,
    KontextSession,
    Limits,
    PermissionDenied,
    RequestRejected,
    SessionClosed,
    SessionCrashed,
    TaskFailed,
    TaskNotFound,
    TaskTimeout,
    Timeouts,
)
from kontext_async.emulator import Emulator, Fault, FaultKind
from kontext_async.events import Accepted, Completed, Downloaded, Event, StatusReceived, Submitting
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from kontext_async import ImageSource, SessionError

pytestmark = pytest.mark.anyio


async def test_generate_returns_the_image_of_its_request(
    session: KontextSession, emulator: Emulator, events: list[Event], tmp_path: Path
) -> None:
    fox = await session.generate("a red fox in snow", aspect_ratio="16:9", seed=7, output_format="png")
    assert fox.request == KontextRequest("a red fox in snow", aspect_ratio="16:9", seed=7, output_format="png")
    assert fox.usage.cost == Decimal("0.04")
    assert fox.model == "flux_kontext_pro"
    assert fox.created_at is not None
    assert 0 < fox.elapsed < 5
    assert fox.task_id in emulator.ledger.task_ids
    path = await session.save(fox.images[0], tmp_path / "new" / "fox.png")
    assert path == tmp_path / "new" / "fox.png"
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert pytest.approx(image.width / image.height, rel=0.1) == 16 / 9
    assert [type(event) for event in events if not isinstance(event, StatusReceived)] == [
        Submitting,
        Accepted,
        Completed,
        Downloaded,
    ]
    assert {event.fingerprint for event in events[:-1]} == {events[0].fingerprint}
    assert session.statistics().spent == Decimal("0.04")
    assert session.statistics().in_flight == session.statistics().pending == 0


async def test_every_request_identifies_the_client(session: KontextSession, emulator: Emulator) -> None:
    fox = await session.generate("a red fox")
    await session.read(fox.images[0])
    assert {record.headers["Authorization"] for record in emulator.requests if record.origin == "api"} == {
        f"Bearer {emulator.api_key}"
    }
    assert all(record.headers["User-Agent"].startswith("kontext_async/") for record in emulator.requests)


async def test_redirects_do_not_take_the_key_to_another_origin(session: KontextSession, emulator: Emulator) -> None:
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


class TestInputImages:
    @pytest.mark.parametrize(
        "kind", ["path", "str", "bytes", "bytearray", "memoryview", "file", "data", "pillow", "url"]
    )
    async def test_every_kind_of_source_is_accepted(
        self, kind: str, session: KontextSession, emulator: Emulator, tmp_path: Path
    ) -> None:
        png = encode_png()
        (tmp_path / "in.png").write_bytes(png)
        sources: dict[str, Callable[[], ImageSource]] = {
            "path": lambda: tmp_path / "in.png",
            "str": lambda: str(tmp_path / "in.png"),
            "bytes": lambda: png,
            "bytearray": lambda: bytearray(png),
            "memoryview": lambda: memoryview(png),
            "file": lambda: io.BytesIO(png),
            "data": lambda: "data:image/png;base64," + base64.b64encode(png).decode(),
            "pillow": lambda: Image.open(io.BytesIO(png)),
            "url": lambda: "https://example.com/in.png",
        }
        edit = await session.generate("make it dusk", input_images=[sources[kind]()])
        assert edit.request is not None
        assert len(edit.request.input_images) == 1
        assert emulator.ledger.accepted == 1

    async def test_four_images_are_sent_and_an_unusable_one_is_refused_before_a_byte_is_sent(
        self, session: KontextSession, emulator: Emulator, tmp_path: Path
    ) -> None:
        await session.generate("all of them", input_images=[encode_png(c) for c in ("red", "green", "blue", "white")])
        (tmp_path / "notes.png").write_text("not an image")
        seen = len(emulator.requests)
        cases: list[list[ImageSource]] = [
            [encode_png(), tmp_path / "missing.png"],
            [encode_png(), tmp_path / "notes.png"],
            [tmp_path],
        ]
        for wrong in cases:
            with pytest.raises(InvalidRequest) as caught:
                await session.generate("edit", input_images=wrong)
            assert caught.value.field == f"input_images[{len(wrong) - 1}]"
        with pytest.raises(InvalidRequest):
            await session.generate("edit", input_images=[encode_png()] * 5)
        assert len(emulator.requests) == seen

    async def test_an_image_over_the_size_limit_is_refused(self, emulator: Emulator, tmp_path: Path) -> None:
        png = encode_png()
        (tmp_path / "in.png").write_bytes(png)
        for limit, fits in ((len(png), True), (len(png) - 1, False)):
            settings = attrs.evolve(FAST, limits=Limits(max_image_bytes=limit))
            async with new_session(emulator, settings) as session:
                if fits:
                    assert (await session.generate("edit", input_images=[tmp_path / "in.png"])).images
                else:
                    with pytest.raises(InvalidRequest, match="at most"):
                        await session.generate("edit", input_images=[tmp_path / "in.png"])

    async def test_one_binary_file_serves_many_requests(self, session: KontextSession, emulator: Emulator) -> None:
        file = io.BytesIO(encode_png())
        outcomes = await session.generate_all({"prompt": f"edit {n}", "input_images": [file]} for n in range(12))
        assert all(outcome.ok for outcome in outcomes)
        assert emulator.ledger.billed == 12


class TestUsageErrors:
    async def test_invalid_fields_are_refused_before_a_byte_is_sent(
        self, session: KontextSession, emulator: Emulator
    ) -> None:
        wrong: list[dict[str, Any]] = [{"aspect_ratio": "22:9"}, {"seed": True}, {"safety_tolerance": 7}]
        for fields in wrong:
            with pytest.raises(InvalidRequest) as caught:
                await session.generate("a fox", **fields)
            assert caught.value.field in fields
        for prompt in ("  ", {"prompt": "x", "aspect": "1:1"}, 7):
            with pytest.raises(InvalidRequest):
                await session.generate(prompt)  # type: ignore[arg-type]
        for timeout in (0, -1, float("nan"), float("inf"), True, "1"):
            with pytest.raises(InvalidRequest):
                await session.generate("a fox", timeout=timeout)  # type: ignore[arg-type]
        assert not emulator.requests

    @pytest.mark.parametrize(
        ("life", "expected", "words"),
        [
            ("not started", SessionClosed, "not started"),
            ("closed", SessionClosed, "is closed"),
            ("crashed", SessionCrashed, "background work failed"),
        ],
    )
    async def test_a_session_that_is_not_running_sends_nothing(
        self, emulator: Emulator, life: str, expected: type[SessionError], words: str
    ) -> None:
        session = new_session(emulator)
        if life != "not started":
            await session.start()
        if life == "closed":
            await session.aclose()
        elif life == "crashed":
            await crash(session)
        with pytest.raises(expected, match=words) as caught:
            await session.generate("a fox")
        assert type(caught.value) is expected
        assert caught.value.task_id is None
        assert not caught.value.may_be_charged
        assert not emulator.requests
        assert session.statistics().submitted == 0
        await session.aclose()

    async def test_a_session_of_another_event_loop_sends_nothing(
        self, session: KontextSession, emulator: Emulator
    ) -> None:
        def generate_elsewhere() -> None:
            asyncio.run(session.generate("a fox"))

        with pytest.raises(SessionClosed, match="another event loop"):
            await asyncio.to_thread(generate_elsewhere)
        assert not emulator.requests


async def crash(session: KontextSession) -> None:
    """Let a child of the session's owner task fail."""

    async def fail() -> None:
        raise ZeroDivisionError("a bug")

    session._engine.start_soon(fail)
    await until(lambda: session.is_closed)


class TestFailures:
    async def test_a_task_that_ends_in_the_create_response_is_not_polled(
        self, session: KontextSession, emulator: Emulator
    ) -> None:
        emulator.faults.script("create", [FaultKind.COMPLETED_AT_ONCE, FaultKind.FAILED_AT_ONCE])
        assert (await session.generate("completed at once")).images
        with pytest.raises(TaskFailed) as caught:
            await session.generate("failed at once")
        assert caught.value.task_id in emulator.ledger.task_ids
        assert session.statistics().polls == 0
        assert session.statistics().in_flight == 0

    async def test_a_failed_task_raises_the_gateways_reason(self, session: KontextSession, emulator: Emulator) -> None:
        emulator.faults.script("create", [Fault(kind=FaultKind.TASK_FAILS, code="002014001", message="too dark")])
        with pytest.raises(TaskFailed, match="too dark") as caught:
            await session.generate("a fox at night")
        assert caught.value.code == "002014001"
        assert caught.value.may_be_charged

    async def test_a_completed_task_without_an_image_is_a_failure(
        self, session: KontextSession, emulator: Emulator
    ) -> None:
        emulator.faults.set_rate(Fault(kind=FaultKind.ODD_OUTPUT, on=["status"], variant="empty"), 1)
        with pytest.raises(TaskFailed, match="without an image"):
            await session.generate("nothing")

    async def test_an_unknown_task_has_a_grace_period(self, session: KontextSession, emulator: Emulator) -> None:
        emulator.faults.script("create", [Fault(kind=FaultKind.TASK_LATE, seconds=0.1)])
        assert (await session.generate("known a little later")).images
        emulator.faults.script("create", [FaultKind.TASK_VANISHES])
        with pytest.raises(TaskNotFound) as caught:
            await session.generate("never known")
        assert caught.value.task_id
        assert session.statistics().in_flight == 0

    @pytest.mark.parametrize(
        ("emulator_options", "expected"),
        [
            ({"balance": Decimal("0.01")}, PermissionDenied),
            ({"api_key": "another"}, AuthenticationFailed),
        ],
    )
    async def test_a_refused_account_raises_without_showing_the_key(
        self, emulator: Emulator, expected: type[Exception]
    ) -> None:
        async with KontextSession("emulator-key", base_url=emulator.base_url, settings=FAST) as session:
            with pytest.raises(expected) as caught:
                await session.generate("a fox")
            assert "emulator-key" not in str(caught.value) + repr(caught.value)
            assert session.statistics().submitted == 1
            assert session.statistics().in_flight == 0

    async def test_a_key_that_is_refused_by_a_poll_fails_all_waiters(
        self, session: KontextSession, emulator: Emulator
    ) -> None:
        emulator.faults.set_rate(FaultKind.TASK_HANGS, 1)
        waits = [asyncio.create_task(session.generate(f"fox {n}")) for n in range(5)]
        await until(lambda: session.statistics().pending == 5)
        emulator.faults.set_rate(Fault(kind=FaultKind.UNAUTHORIZED, on=["status", "precharge"]), 1)
        errors = await asyncio.wait_for(asyncio.gather(*waits, return_exceptions=True), 10)
        assert all(isinstance(error, AuthenticationFailed) for error in errors)
        assert len({error.task_id for error in errors if isinstance(error, AuthenticationFailed)}) == 5
        assert session.statistics().in_flight == 0

    @pytest.mark.parametrize("emulator_options", [{"service_time": 0.0, "api_key": "a"}, {"service_time": 0.0}])
    async def test_an_echoed_key_is_removed_from_errors_and_from_nothing_else(self, emulator: Emulator) -> None:
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


class TestTimeout:
    @pytest.mark.parametrize("late", [False, True])
    async def test_a_wait_that_is_shorter_than_a_poll_may_take_is_kept(self, emulator: Emulator, late: bool) -> None:  # noqa: FBT001 # a parameter
        """`Timeouts.wait` holds everywhere, however long `Timeouts.status` is, and for a wait that begins late too."""
        emulator.faults.set_rate(FaultKind.TASK_HANGS, 1)
        settings = attrs.evolve(FAST, timeouts=Timeouts(wait=0.2, status=30.0))
        async with new_session(emulator, settings) as session:
            task = await session.submit("a fox")
            if late:
                await until(lambda: session.statistics().abandoned)
            with pytest.raises(TaskTimeout) as caught:
                await asyncio.wait_for(task.wait(), 10)
            assert caught.value.waited < 10
            (outcome,) = await asyncio.wait_for(session.generate_all(["a fox"]), 10)
            assert isinstance(outcome.error, TaskTimeout)

    async def test_a_timeout_keeps_the_id_and_attach_resumes_the_task(
        self, session: KontextSession, emulator: Emulator
    ) -> None:
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

    async def test_a_task_timeout_is_a_timeout_error(self, session: KontextSession, emulator: Emulator) -> None:
        emulator.faults.script("create", [FaultKind.TASK_HANGS])
        try:
            await session.generate("hangs", timeout=0.1)
        except TimeoutError as error:
            caught: TimeoutError | None = error
        else:
            caught = None
        assert isinstance(caught, TaskTimeout)
        assert caught.task_id in emulator.ledger.task_ids
        assert count_creates(emulator) == 1


def test_a_session_needs_nothing_but_asyncio() -> None:
    """Under `asyncio.run` a timer's callback runs in no task, so anyio cannot detect its backend there."""

    async def main() -> bool:
        async with Emulator(service_time=0.05, pixels=4096) as emulator, new_session(emulator) as session:
            return all(outcome.ok for outcome in await session.generate_all(f"fox {n}" for n in range(20)))

    assert asyncio.run(main())
