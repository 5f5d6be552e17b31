"""Plans rows, in a transaction."""

# ruff: noqa: S608 # the words of SQL are ours; values are parameters

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from kontext_async.store.sql.reading import fetch_rows_by_key
from kontext_async.store.sql.records import clean, new_record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kontext_async.store.rows import NewRow, Row
    from kontext_async.store.sql.transaction import Transaction

__all__ = ["plan_rows"]

TYPES = {
    "run_id": "bigint",
    "key": "text",
    "state": "text",
    "owner": "bigint",
    "digest": "text",
    "model": "text",
    "images": "smallint",
    "prompt": "text",
    "fields": "text",
    "position": "bigint",
    "execution": "integer",
}
DECODED = "decode(v.digest, 'hex')"
INSERT = f"INSERT INTO kontext_requests ({', '.join(TYPES)})"
ONCE = "ON CONFLICT (run_id, key) DO NOTHING"
INSERT_ONE = f"{INSERT} VALUES ({', '.join(f':{name}' for name in TYPES)}) {ONCE}"
INSERT_MANY = (
    f"{INSERT} SELECT {', '.join(f'v.{name}' for name in TYPES).replace('v.digest', DECODED)} "
    f"FROM json_to_recordset(:values::json) AS v({', '.join(f'{name} {kind}' for name, kind in TYPES.items())}, "
    f"place integer) ORDER BY v.place {ONCE}"
)
MOVE_ONE = (
    "UPDATE kontext_requests SET position = :position, execution = :execution "
    "WHERE id = :number AND execution <= :execution"
)
MOVE_MANY = (
    "UPDATE kontext_requests AS r SET position = v.position, execution = v.execution "
    "FROM json_to_recordset(:values::json) AS v(number bigint, position bigint, execution integer) "
    "WHERE r.id = v.number AND r.execution <= v.execution"
)
LOCK_PLANNING = "SELECT pg_advisory_xact_lock(:kind, :run)"
PLANNING = 0x6B6F6E74
"""The first key of the lock with which workers insert rows of a run one after the other: two of them that insert the
same keys in different orders would wait for each other."""


def plan_rows(
    transaction: Transaction, run: int, new: Sequence[NewRow], worker: int | None, execution: int | None
) -> list[Row]:
    """Return the rows of keys, in order; create the missing ones."""
    keys = [clean(each.key) for each in new]
    rows = fetch_rows_by_key(transaction, run, keys)
    missing = {key: each for key, each in zip(keys, new, strict=True) if key not in rows}
    moved = []
    if execution is not None:
        moved = [
            {"number": rows[key].id, "position": each.position, "execution": execution}
            for key, each in zip(keys, new, strict=True)
            if key in rows and (rows[key].execution, rows[key].position) != (execution, each.position)
        ]
    if missing:
        _insert(transaction, [new_record(run, each, worker, execution or 0) for each in missing.values()])
    if moved:
        _move(transaction, moved)
    if missing or moved:
        changed = [*missing, *(key for key in keys if key in rows)] if moved else [*missing]
        rows |= fetch_rows_by_key(transaction, run, changed)
    return [rows[key] for key in keys]


def _insert(transaction: Transaction, records: Sequence[dict[str, Any]]) -> None:
    if not transaction.dialect.takes_json:
        transaction.execute_many(INSERT_ONE, records)
        return
    if len(records) > 1:
        transaction.fetch(LOCK_PLANNING, kind=PLANNING, run=records[0]["run_id"] % 2**31)
    values = [record | {"digest": record["digest"].hex(), "place": place} for place, record in enumerate(records)]
    transaction.execute(INSERT_MANY, values=orjson.dumps(values).decode())


def _move(transaction: Transaction, moved: Sequence[dict[str, Any]]) -> None:
    if transaction.dialect.takes_json:
        transaction.execute(MOVE_MANY, values=orjson.dumps(moved).decode())
    else:
        transaction.execute_many(MOVE_ONE, moved)
