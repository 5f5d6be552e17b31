"""The fixture `kontext_store`, as users' tests have it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from kontext_async import KontextSession

if TYPE_CHECKING:
    from kontext_async import Settings
    from kontext_async.emulator import Emulator
    from kontext_async.testing import MemoryStore

pytest_plugins = ["kontext_async.testing.plugin"]
pytestmark = pytest.mark.anyio


async def test_a_second_session_gets_what_the_first_one_paid_for(
    kontext_emulator: Emulator, kontext_settings: Settings, kontext_store: MemoryStore
) -> None:
    async with KontextSession(store=kontext_store, settings=kontext_settings) as session:
        fox = await session.generate("a fox", key="job-42")
    async with KontextSession(store=kontext_store.share(), settings=kontext_settings) as session:
        again = await session.generate("a fox", key="job-42")
    assert again.task_id == fox.task_id
    assert kontext_emulator.ledger.billed == 1


async def test_two_sessions_at_once_pay_once(
    kontext_emulator: Emulator, kontext_settings: Settings, kontext_store: MemoryStore
) -> None:
    async with (
        KontextSession(store=kontext_store, settings=kontext_settings) as one,
        KontextSession(store=kontext_store.share(), settings=kontext_settings) as other,
    ):
        tasks = [session.submit("a fox", key="job-42") for session in (one, other, one, other)]
        assert len({(await (await task).wait()).task_id for task in tasks}) == 1
    assert kontext_emulator.ledger.billed == 1


async def test_each_test_gets_an_empty_store(kontext_store: MemoryStore) -> None:
    assert not kontext_store.database.rows
