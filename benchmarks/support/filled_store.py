"""Fills a store with finished rows of a bulk run: one row takes all steps, and SQL copies it, which is fast."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from contextlib import closing
from decimal import Decimal
from typing import TYPE_CHECKING

from kontext_async.settings import StoreSettings
from kontext_async.store.rows import Account, NewRow, RowStep
from kontext_async.store.sql.schema import requests
from kontext_async.store.steps import Accepted, Completed, Intended, Saved, Verdict
from kontext_async.store.urls import store_from_url

if TYPE_CHECKING:
    from benchmarks.support.stores import StoreServer

__all__ = ["fill_store"]

SEED_KEY = "filled-0"
COPIED = {
    "key": "'filled-' || x",
    "prompt": "'filled ' || x",
    "task_id": "'filled-' || x",
    "position": "x",
    "completion": "x",
    "files": "'[[\"' || x || '.jpg\",100]]'",
}
"""The columns that differ from those of the first row, in the SQL of both databases."""


def fill_store(server: StoreServer, run: str, rows: int) -> None:
    """Add so many saved rows to a run, which is created. The files do not exist: no input contains these rows."""
    asyncio.run(_save_one(server.url, run))
    if rows <= 0:
        return
    names = [column.name for column in requests.columns if column.name != "id"]
    values = ", ".join(COPIED.get(name, f"{requests.name}.{name}") for name in names)
    counted = f"WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < {int(rows)})"  # noqa: S608
    selected = f"SELECT {values} FROM {requests.name}, n WHERE {requests.name}.key = '{SEED_KEY}'"  # noqa: S608 # ours
    columns = ", ".join(names)
    if server.database:
        server.database.execute(f"{counted} INSERT INTO {requests.name} ({columns}) {selected}")
        server.database.execute("ANALYZE")
        return
    with closing(sqlite3.connect(server.url.removeprefix("sqlite:///"))) as connection, connection:
        connection.execute(f"{counted} INSERT INTO {requests.name} ({columns}) {selected}")


async def _save_one(url: str, run_name: str) -> None:
    """Take one row through all steps, on behalf of a worker that ends then."""
    store = store_from_url(url, StoreSettings())
    await store.open()
    try:
        worker = await store.add_worker(b"filled-by-nobody", 60.0)
        run = await store.open_run(run_name, executes=True)
        assert run
        account = await store.account(Account(gateway="kontext", base="http://127.0.0.1:1", name="filled"))
        folder = await store.folder(b"filled-by-nobody", "/nowhere")
        new = NewRow(key=SEED_KEY, digest=bytes(32), model="flux_kontext_pro", images=0, prompt="filled", position=0)
        (row,) = await store.plan(run.id, [new], execution=run.execution)
        at = time.time()
        result = {"task_id": "filled", "images": []}
        steps = (
            Intended(attempt=1, account=account, at=at),
            Accepted(attempt=1, task_id="filled", at=at),
            Completed(attempt=1, task_id="filled", result=result, cost=Decimal("0.04"), seconds=1.0, at=at),
            Saved(attempt=1, folder=folder, files=(("0.jpg", 100),), completion=0, at=at),
        )
        for step in steps:
            (outcome,) = await store.apply(worker, [RowStep(row=row.id, step=step)])
            assert outcome.verdict is Verdict.APPLIED, (step, outcome)
        await store.remove_worker(worker)
    finally:
        await store.aclose()
