"""Rows of the store as records of the table, and back. Pure.

JSON is orjson's. What it does not take (a lone half of a surrogate pair, which JSON of a gateway may contain) is
escaped by the standard library.
"""

# ruff: noqa: S608 # the words of SQL are ours; values are parameters

from __future__ import annotations

import json
from decimal import Decimal
from types import NoneType
from typing import TYPE_CHECKING, Any

import orjson
from attrs import evolve
from sqlalchemy import Float, Integer, LargeBinary

from kontext_async.decisions.money import read_money
from kontext_async.errors import StoreUnusable
from kontext_async.redaction import truncate
from kontext_async.store.rows import Row, SecondTask
from kontext_async.store.sql.schema import requests
from kontext_async.store.steps import State

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from kontext_async.store.rows import NewRow

__all__ = [
    "COLUMNS",
    "SECOND_TASK_COLUMNS",
    "clean",
    "clean_new",
    "encode",
    "new_record",
    "row_of",
    "second_task_of",
    "select_rows",
]

COLUMNS = tuple(requests.columns.keys())
"""The columns of a row, in the order in which `row_of` reads them; whether its owner lives comes after them."""

SECOND_TASK_COLUMNS: tuple[str, ...] = (
    "row_id",
    "task_id",
    "attempt",
    "reference",
    "account",
    "state",
    "cost",
    "accepted_at",
    "received_at",
    "key",
)

_good_signatures: set[tuple[type, ...]] = set()

STATES: Mapping[object, State] = {str(state): state for state in State}
HAVE_TASKS = frozenset({State.ACCEPTED, State.COMPLETED, State.SAVED})


def clean(text: str) -> str:
    """Return a text as a database takes it: PostgreSQL has no NUL, and UTF-8 no lone half of a surrogate pair."""
    if text.isascii() and "\0" not in text:
        return text
    return text.replace("\0", "\ufffd").encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _json(value: Any) -> str:
    try:
        return orjson.dumps(value).decode()
    except TypeError:
        return json.dumps(value, default=str)


def _json_or_none(value: Any) -> str | None:
    return _json(value) if value else None


ENCODERS: Mapping[str, Callable[[Any], Any]] = {
    "state": str,
    **dict.fromkeys(("key", "model", "prompt", "task_id", "reference"), clean),
    **dict.fromkeys(("reserved", "cost"), str),
    **dict.fromkeys(("result", "error"), _json),
    **dict.fromkeys(("fields", "files"), _json_or_none),
}
"""The functions that make a value of a row the value of its column, where it is not the same. ``NULL`` is always None,
and stands also for fields and files that are empty, as they often are."""


def select_rows(alive: str) -> str:
    """Return the beginning of a query for rows.

    Args:
        alive: The condition that the owner of ``r`` is alive.
    """
    return f"SELECT {', '.join(f'r.{name}' for name in COLUMNS)}, {alive} FROM kontext_requests AS r"


def row_of(record: Sequence[Any]) -> Row:
    """Return the row that a record describes.

    Raises:
        StoreUnusable: A value is not one that this library writes.
    """
    (
        number,
        run,
        key,
        state,
        attempt,
        owner,
        account,
        digest,
        model,
        images,
        prompt,
        fields,
        uncertain_attempts,
        reserved,
        task_id,
        reference,
        cost,
        seconds,
        result,
        error,
        folder,
        files,
        position,
        execution,
        completion,
        intended_at,
        accepted_at,
        completed_at,
        received_at,
        owner_alive,
    ) = record
    signature = tuple(map(type, record))
    try:
        if signature not in _good_signatures:
            _check_types(signature)
        _check_task(state, task_id)
        return Row(
            id=number,
            run=run,
            key=key,
            state=STATES[state],
            attempt=attempt,
            owner=owner,
            owner_alive=bool(owner_alive),
            account=account,
            digest=bytes(digest),
            model=model,
            images=images,
            prompt=prompt,
            fields={} if fields is None else _object(fields),
            uncertain_attempts=uncertain_attempts,
            reserved=None if reserved is None else Decimal(reserved),
            task_id=task_id,
            reference=reference,
            cost=None if cost is None else read_money(cost),
            seconds=seconds,
            result=None if result is None else _object(result),
            error=None if error is None else _object(error),
            folder=folder,
            files=() if files is None else _files(files),
            position=position,
            execution=execution,
            completion=completion,
            intended_at=intended_at,
            accepted_at=accepted_at,
            completed_at=completed_at,
            received_at=received_at,
        )
    except (ValueError, TypeError, KeyError, ArithmeticError) as damage:
        raise _odd("row", number) from damage


def second_task_of(record: Sequence[Any], run: str) -> SecondTask:
    """Return the second task that a record describes.

    Raises:
        StoreUnusable: A value is not one that this library writes.
    """
    row, task_id, attempt, reference, account, state, cost, accepted_at, received_at, key = record
    try:
        return SecondTask(
            row=row,
            run=run,
            key=key,
            attempt=attempt,
            task_id=task_id,
            reference=reference,
            account=account,
            state=STATES[state],
            cost=None if cost is None else read_money(cost),
            accepted_at=accepted_at,
            received_at=received_at,
        )
    except (ValueError, TypeError, KeyError) as damage:
        raise _odd("second task of row", row) from damage


def new_record(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the record of a new row, whose texts are clean: see `store.states.first_values`."""
    return {
        "run_id": values["run"],
        "key": values["key"],
        "state": str(values["state"]),
        "attempt": values.get("attempt", 0),
        "owner": values["owner"],
        "account": values.get("account"),
        "intended_at": values.get("intended_at"),
        "reserved": encode("reserved", values.get("reserved")),
        "digest": values["digest"],
        "model": values["model"],
        "images": int(values["images"]),
        "prompt": values["prompt"],
        "fields": encode("fields", values["fields"]),
        "position": values["position"],
        "execution": values["execution"],
    }


def encode(column: str, value: Any) -> Any:
    """Return a value of a row as the value of its column."""
    encoder = ENCODERS.get(column)
    return value if value is None or encoder is None else encoder(value)


def clean_new(new: NewRow) -> NewRow:
    """Return a request with its texts as the database will return them."""
    texts: dict[str, Any] = {
        name: clean(text) for name in ("key", "model", "prompt") if clean(text := getattr(new, name)) != text
    }
    return evolve(new, **texts) if texts else new


def _decode(text: str) -> Any:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return json.loads(text)


def _object(text: str) -> dict[str, Any]:
    value = _decode(text)
    if not isinstance(value, dict):
        raise TypeError("it must be a JSON object")
    return value


def _files(text: str) -> tuple[tuple[str, int], ...]:
    files = tuple((name, size) for name, size in _decode(text))
    if not (text.startswith("[") and all(type(name) is str and type(size) is int for name, size in files)):
        raise TypeError("it must be a JSON array of names and sizes")
    return files


def _check_task(state: str, task_id: str | None) -> None:
    """Check that a row has a task if its state says so.

    Raises:
        ValueError: It has none.
    """
    if task_id is None and state in HAVE_TASKS:
        raise ValueError("a row in this state has a task ID")


def _check_types(signature: tuple[type, ...]) -> None:
    """Check the types of a record: SQLite keeps values of any type in any column.

    Raises:
        TypeError: A column has a value of another type.
    """
    for column, kind in zip(requests.columns, signature, strict=False):
        if not (kind in _types_of(column.type) or (column.nullable and kind is NoneType)):
            raise TypeError(f"the column {column.name} has a value of another type")
    _good_signatures.add(signature)


def _types_of(kind: object) -> tuple[type, ...]:
    if isinstance(kind, LargeBinary):
        return (bytes,)
    if isinstance(kind, Float):
        return (float, int)
    return (int,) if isinstance(kind, Integer) else (str,)


def _odd(kind: str, number: object) -> StoreUnusable:
    return StoreUnusable(
        f"the store is damaged: its {kind} {truncate(str(number), 20)} has values that this library does not write; "
        "restore it from a backup"
    )
