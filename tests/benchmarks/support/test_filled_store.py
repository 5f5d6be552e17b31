"""A store is filled with finished rows that a run cannot tell from its own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from servers_support import skipping

from benchmarks.support.filled_store import fill_store
from benchmarks.support.stores import POSTGRES, SQLITE, read_store, start_store

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("kind", [SQLITE, POSTGRES])
def test_a_filled_store_has_saved_rows_with_keys_tasks_and_places_of_their_own(kind: str, tmp_path: Path) -> None:
    with skipping(), start_store(kind, tmp_path, fsync=False) as server:
        fill_store(server, "run", 20)
        state = read_store(server.url)
    assert state.states == {"saved": 21}
    for values in zip(
        *((row.key, row.task_id, row.position, row.completion, row.files) for row in state.rows), strict=True
    ):
        assert len(set(values)) == 21
