"""A worker at a store in memory that fails on demand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from unreliable_store import UnreliableStore, open_worker, plan_row, worker_settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from kontext_async.settings import StoreSettings
    from kontext_async.store.rows import Row
    from kontext_async.store.worker import Worker


@pytest.fixture
def store() -> UnreliableStore:
    return UnreliableStore()


@pytest.fixture
def settings(tmp_path: Path) -> StoreSettings:
    return worker_settings(tmp_path / "spool")


@pytest.fixture
async def worker(anyio_backend: str, store: UnreliableStore, settings: StoreSettings) -> AsyncIterator[Worker]:
    async with open_worker(store, settings) as worker:
        yield worker


@pytest.fixture
async def row(worker: Worker) -> Row:
    return await plan_row(worker)
