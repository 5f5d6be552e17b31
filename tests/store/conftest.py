"""Stores of each kind, over one database each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from store_support import Stores, Worker, new_row

from kontext_async.store.memory import MemoryDatabase

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from kontext_async.store.base import Store
    from kontext_async.store.rows import Row


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
def store_place(request: pytest.FixtureRequest, tmp_path: Path) -> MemoryDatabase | str:
    """An empty database: in memory, or its URL."""
    match request.param:
        case "memory":
            return MemoryDatabase()
        case "sqlite":
            return f"sqlite:///{tmp_path}/store.sqlite"
    url: str = request.getfixturevalue("postgres_database").url
    return url


@pytest.fixture
async def stores(anyio_backend: str, store_place: MemoryDatabase | str) -> AsyncIterator[Stores]:
    """Open as many stores over one database as a test needs."""
    async with Stores(store_place) as opened:
        yield opened


@pytest.fixture
async def worker(stores: Stores) -> Worker:
    return await stores.start_worker()


@pytest.fixture
async def another(stores: Stores) -> Worker:
    """A worker of another process."""
    return await stores.start_worker()


@pytest.fixture
def store(worker: Worker) -> Store:
    return worker.store


@pytest.fixture
async def row(store: Store) -> Row:
    """A planned row of the first run."""
    [row] = await store.plan(1, [new_row()])
    return row
