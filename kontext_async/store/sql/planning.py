"""Plans rows, in a transaction."""

# ruff: noqa: S608 # the words of SQL are ours; values are parameters

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from kontext_async.store.sql.reading import fetch_rows_by_key
from kontext_async.store.sql.records import clean, new_record, planned_row

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from kontext_async.store.rows import NewRow, Row
    from kontext_async.store.sql.transaction import Transaction

__all__ = ["plan_rows"]

TYPES = {
    "run_id": "bigint",
    "key": "text",
    "state": "text",
    "attempt": "integer",
    "owner": "bigint",
    "account": "bigint",
    "intended_at": "float8",
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
INSERT_ONE = f"{INSERT} VALUES ({', '.join(f':{name}' for name in TYPES)}) {ONCE} RETURNING key, id"
INSERT_MANY = (
    f"{INSERT} SELECT {', '.join(f'v.{name}' for name in TYPES).replace('v.digest', DECODED)} "
    f"FROM json_to_recordset(:values::json) AS v({', '.join(f'{name} {kind}' for name, kind in TYPES.items())}, "
    f"place integer) ORDER BY v.place {ONCE} RETURNING key, id"
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
    """Return the rows of keys, in order; create the missing ones. Outside bulk runs, most of them are missing."""
    keys = [clean(each.key) for each in new]
    wanted = dict(zip(keys, new, strict=True))
    if execution is None:
        rows = _insert(transaction, run, wanted, worker, 0)
        return _in_order(keys, rows | _fetch(transaction, run, wanted.keys() - rows.keys()))
    rows = _fetch(transaction, run, keys)
    moved = [
        {"number": rows[key].id, "position": each.position, "execution": execution}
        for key, each in wanted.items()
        if key in rows and (rows[key].execution, rows[key].position) != (execution, each.position)
    ]
    if missing := {key: each for key, each in wanted.items() if key not in rows}:
        rows |= _insert(transaction, run, missing, worker, execution)
    if moved:
        _move(transaction, moved)
    is_stale = moved or len(rows) < len(wanted)  # another worker inserted some meanwhile
    return _in_order(keys, _fetch(transaction, run, keys) if is_stale else rows)


def _in_order(keys: Sequence[str], rows: Mapping[str, Row]) -> list[Row]:
    return [rows[key] for key in keys]


def _fetch(transaction: Transaction, run: int, keys: Collection[str]) -> dict[str, Row]:
    return fetch_rows_by_key(transaction, run, keys) if keys else {}


def _insert(
    transaction: Transaction, run: int, new: Mapping[str, NewRow], worker: int | None, execution: int
) -> dict[str, Row]:
    """Insert rows, and return those that were inserted: not those that another worker was faster to insert."""
    records = [new_record(run, each, worker, execution) for each in new.values()]
    numbers = _insert_records(transaction, records)
    return {
        record["key"]: planned_row(numbers[record["key"]], each, record)
        for record, each in zip(records, new.values(), strict=True)
        if record["key"] in numbers
    }


def _insert_records(transaction: Transaction, records: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Insert records, and return their numbers by their keys."""
    if not transaction.dialect.takes_json:
        statement = transaction.dialect.compile(INSERT_ONE)
        return dict(transaction.fetch_each(statement, records))
    if len(records) > 1:
        transaction.fetch(LOCK_PLANNING, kind=PLANNING, run=records[0]["run_id"] % 2**31)
    values = [record | {"digest": record["digest"].hex(), "place": place} for place, record in enumerate(records)]
    return transaction.fetch_pairs(INSERT_MANY, values=orjson.dumps(values).decode())


def _move(transaction: Transaction, moved: Sequence[dict[str, Any]]) -> None:
    if transaction.dialect.takes_json:
        transaction.execute(MOVE_MANY, values=orjson.dumps(moved).decode())
    else:
        transaction.execute_many(MOVE_ONE, moved)
