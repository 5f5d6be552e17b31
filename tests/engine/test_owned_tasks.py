"""Plain asyncio tasks with an owner, and attempts that are cancelled before their first step."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import anyio
import pytest
from session_support import new_session

from kontext_async import KontextRequest, SessionClosed, TaskFailed
from kontext_async.engine.owned_tasks import OwnedTasks
from kontext_async.engine.submission import Submission
from kontext_async.engine.task_record import TaskRecord
from kontext_async.protocol import fingerprint

if TYPE_CHECKING:
    from kontext_async.emulator import Emulator

pytestmark = pytest.mark.anyio


class Owner:
    """The tasks of one owner, and what was reported to it."""

    def __init__(self) -> None:
        self.crashes: list[Exception] = []
        self.ended: list[asyncio.Task[None]] = []
        self.tasks = OwnedTasks(self.crashes.append)

    def start(self, work: Any) -> asyncio.Task[None]:
        return self.tasks.start(work, self.ended.append)


async def test_an_owner_waits_for_its_tasks() -> None:
    owner = Owner()
    task = owner.start(asyncio.sleep(0))
    await owner.tasks.wait()
    assert owner.ended == [task]
    assert owner.crashes == []


async def test_an_owner_cancels_its_tasks_even_before_their_first_step() -> None:
    owner = Owner()
    running = owner.start(asyncio.sleep(60))
    await asyncio.sleep(0)
    new = owner.start(asyncio.sleep(60))
    owner.tasks.cancel()
    await owner.tasks.wait()
    assert running.cancelled()
    assert new.cancelled()
    assert set(owner.ended) == {running, new}


async def test_an_owner_hears_of_a_task_that_fails() -> None:
    async def fail() -> None:
        raise ZeroDivisionError("a bug")

    owner = Owner()
    owner.start(fail())
    await owner.tasks.wait()
    assert [str(error) for error in owner.crashes] == ["a bug"]


async def test_an_attempt_that_is_cancelled_before_its_first_step_sends_nothing(emulator: Emulator) -> None:
    async with new_session(emulator) as session:
        scheduler = session._engine.scheduler
        waiting = asyncio.ensure_future(session.submit("a fox"))
        await asyncio.sleep(0)
        (attempt,) = scheduler._in_flight.values()
        assert not attempt.has_begun
        attempt.cancel()
        with pytest.raises(SessionClosed):
            await waiting
        assert session.statistics().in_flight == 0
        assert (await session.generate("still works")).images
    assert len(emulator.ledger.task_ids) == 1


def test_a_record_of_a_mere_prompt_returns_its_request() -> None:
    request = KontextRequest("a fox")
    packed, given = TaskRecord("task-1", 0.0, request="a fox"), TaskRecord("task-1", 0.0, request=request)
    assert packed.request == given.request == request
    assert given.request is request
    assert packed.request_kind == given.request_kind == ("flux_kontext_pro", 0)
    assert packed.fingerprint == given.fingerprint == fingerprint(request, ())
    assert packed.model == given.model == "flux_kontext_pro"
    assert TaskRecord("task-1", 0.0).request_kind is None


async def test_a_record_with_a_result_is_waited_for_no_longer() -> None:
    record = TaskRecord("task-1", 0.0)
    error = TaskFailed(task_id="task-1", code=None, message="generation failed")
    record.set_result(error)
    with anyio.fail_after(5):
        found = await record.wait()
    assert str(found) == str(error)
    assert found is not error


def test_the_fingerprint_of_a_submission_without_images_needs_no_images() -> None:
    request = KontextRequest("a fox")
    assert Submission(request).fingerprint == fingerprint(request, ())
    assert Submission(KontextRequest("edit", input_images="https://host/a.png")).fingerprint is None
