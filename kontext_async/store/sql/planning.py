"""Plans rows, in a transaction."""

# ruff: noqa: S608 # the words of SQL are ours; values are parameters

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from kontext_async.store.rows import Row
from kontext_async.store.sql.reading import fetch_rows_by_key, lock_rows
from kontext_async.store.sql.records import clean_new, new_record
from kontext_async.store.sql.transaction import VALUES_OF_RECORDS
from kontext_async.store.states import first_values, is_moved, is_ownerless

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from kontext_async.store.rows import NewRow
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
    "reserved": "text",
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
INSERT_VALUES = f"{INSERT} {VALUES_OF_RECORDS} {ONCE} RETURNING key, id"
INSERT_MANY = (
    f"{INSERT} SELECT {', '.join(f'v.{name}' for name in TYPES).replace('v.digest', DECODED)} "
    f"FROM json_to_recordset(:values::json) AS v({', '.join(f'{name} {kind}' for name, kind in TYPES.items())}, "
    f"place integer) ORDER BY v.place {ONCE} RETURNING key, id"
)
MOVE = "UPDATE kontext_requests AS r SET position = v.position, execution = v.execution"
MOVED = "WHERE r.id = v.number AND r.execution <= v.execution"
PLACES = ("number", "position", "execution")
MOVE_VALUES = f"WITH v({', '.join(PLACES)}) AS ({VALUES_OF_RECORDS}) {MOVE} FROM v {MOVED} RETURNING id"
MOVE_MANY = (
    f"{MOVE} FROM json_to_recordset(:values::json) AS v(number bigint, position bigint, execution integer) {MOVED}"
)
PREFER = (
    "UPDATE kontext_requests AS r SET owner = :worker WHERE {rows} AND r.state = 'planned' AND NOT {alive} "
    "RETURNING id, key"
)
LOCK_PLANNING = "SELECT pg_advisory_xact_lock(:kind, :run)"
PLANNING = 0x6B6F6E74
"""The first key of the lock with which workers insert rows of a run one after the other: two of them that insert the
same keys in different orders would wait for each other."""


def plan_rows(
    transaction: Transaction, run: int, new: Sequence[NewRow], worker: int | None, execution: int | None
) -> list[Row]:
    """Return the rows of keys, in order; create the missing ones. Outside bulk runs, most of them are missing."""
    cleaned = [clean_new(each) for each in new]
    by_key = {each.key: each for each in cleaned}
    if execution is None:
        rows = _insert(transaction, _first_values(cleaned, run, worker))
        rows |= fetch_rows_by_key(transaction, run, by_key.keys() - rows.keys())
    else:
        rows = _plan_execution(transaction, run, by_key, worker, execution)
    return [rows[each.key] for each in cleaned]


def _plan_execution(
    transaction: Transaction, run: int, new: Mapping[str, NewRow], worker: int | None, execution: int
) -> dict[str, Row]:
    """Return the rows of an execution; update the known ones, and insert the others.

    What is returned was true when it was read: it is not read again after the update.
    """
    rows = fetch_rows_by_key(transaction, run, new.keys())
    places = {
        key: {"position": new[key].position, "execution": execution}
        for key, row in rows.items()
        if is_moved(row, position=new[key].position, execution=execution)
    }
    missing = [each for key, each in new.items() if key not in rows]
    rows |= _insert(transaction, _first_values(missing, run, worker, execution))
    rows |= {key: rows[key].with_changes(place) for key, place in places.items()}
    ownerless = {row.id: row for row in rows.values() if worker is not None and is_ownerless(row)}
    lock_rows(transaction, {rows[key].id for key in places} | ownerless.keys())
    _move(transaction, [{"number": rows[key].id, **place} for key, place in places.items()])
    rows |= (preferred := _prefer(transaction, ownerless, worker))
    others = (new.keys() - rows.keys()) | ({row.key for row in ownerless.values()} - preferred.keys())
    return rows | fetch_rows_by_key(transaction, run, others)  # other workers wrote them meanwhile


def _first_values(new: Iterable[NewRow], run: int, worker: int | None, execution: int = 0) -> dict[str, dict[str, Any]]:
    return {each.key: first_values(each, run=run, worker=worker, execution=execution) for each in new}


def _insert(transaction: Transaction, created: Mapping[str, dict[str, Any]]) -> dict[str, Row]:
    """Insert rows, and return the inserted ones by key. A key that another worker has inserted already is left out."""
    if not created:
        return {}
    records = map(new_record, created.values())
    if not transaction.dialect.takes_json:
        values = [record[name] for record in records for name in TYPES]
        numbers = dict(transaction.fetch_values(INSERT_VALUES, len(TYPES), values))
    else:
        if len(created) > 1:
            run = next(iter(created.values()))["run"]
            transaction.fetch(LOCK_PLANNING, kind=PLANNING, run=run % 2**31)
        objects = [record | {"digest": record["digest"].hex(), "place": place} for place, record in enumerate(records)]
        numbers = transaction.fetch_pairs(INSERT_MANY, values=orjson.dumps(objects).decode())
    return {key: Row(id=number, **created[key]) for key, number in numbers.items()}


def _prefer(transaction: Transaction, ownerless: Mapping[int, Row], worker: int | None) -> dict[str, Row]:
    """Record a worker as the preferred owner of rows that are still ownerless, and return those rows by key."""
    if not ownerless:
        return {}
    dialect = transaction.dialect
    statement = PREFER.format(rows=dialect.is_in("r.id", "rows", "bigint"), alive=dialect.alive)
    preferred = transaction.fetch(statement, rows=dialect.pack(list(ownerless)), worker=worker)
    changes = {"owner": worker, "owner_alive": True}
    return {key: ownerless[number].with_changes(changes) for number, key in preferred}


def _move(transaction: Transaction, moved: Sequence[dict[str, Any]]) -> None:
    if not moved:
        return
    if transaction.dialect.takes_json:
        transaction.execute(MOVE_MANY, values=orjson.dumps(moved).decode())
    else:
        values = [move[name] for move in moved for name in PLACES]
        list(transaction.fetch_values(MOVE_VALUES, len(PLACES), values))
