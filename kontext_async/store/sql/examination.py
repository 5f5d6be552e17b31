"""Examines an SQLite file before it is opened as a store, and changes nothing in it. Blocks.

A file may be damaged, cut, of another application, or from elsewhere with values that this library does not write. It
is then refused, and stays as it is: nothing is created in it or beside it, and no setting of the database is touched.

All rows of version 1 are examined, because they are migrated. Those of version 2 are examined while the file is small:
in a large one, each start would read all of it; `records` refuses odd values when it reads them.
"""

# ruff: noqa: S608 # the words of SQL are ours; values are parameters

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from sqlalchemy import Float, Integer, LargeBinary

from kontext_async.decisions.money import read_money
from kontext_async.errors import StoreUnusable
from kontext_async.redaction import truncate
from kontext_async.store.sql import version_1
from kontext_async.store.sql.schema import VERSION, metadata, requests
from kontext_async.store.steps import State

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sqlalchemy import MetaData, Table

__all__ = ["examine"]

MAGIC = b"SQLite format 3\0"
BUSY_SECONDS = 0.5
"""The longest wait for another process that has the file locked."""

ATTEMPTS = 3
"""The most examinations of a file that another process writes meanwhile, and that seems damaged each time."""

SMALL = 32 << 20
"""Bytes of a file of version 2 that is examined completely."""

FILES = """files IS NULL OR CASE WHEN json_valid(files) THEN json_type(files) = 'array' AND NOT EXISTS (
    SELECT 1 FROM json_each(files) AS file WHERE file.type != 'array' OR json_array_length(file.value) != 2
    OR json_type(file.value, '$[0]') != 'text' OR json_type(file.value, '$[1]') != 'integer') END"""

STATES = f"state IN ({', '.join(repr(str(state)) for state in State)})"

RULES = (
    STATES,
    "images BETWEEN 0 AND 100",
    "max(length(prompt), length(model)) < 10000000",
    "fields IS NULL OR CASE WHEN json_valid(fields) THEN json_type(fields) = 'object' END",
    "error IS NULL OR CASE WHEN json_valid(error) THEN json_type(error) = 'object' END",
    FILES,
    "state NOT IN ('accepted', 'finished', 'saved') OR task_id IS NOT NULL",
    "max(ifnull(accepted_at, 0), ifnull(completed_at, 0), ifnull(seconds, 0)) < 1e11",
    "min(ifnull(accepted_at, 0), ifnull(completed_at, 0), ifnull(seconds, 0)) >= 0",
)
"""The rules that hold for each row of every version, in SQLite's words."""

RULES_OF_VERSION = {
    1: ("length(fingerprint) = 32", "min(occurrence, position, attempts, doubtful) >= 0"),
    2: ("length(digest) = 32", "min(attempt, uncertain_attempts, execution) >= 0"),
}
MONEY_OF_VERSION = {1: ("cost", "sunk"), 2: ("cost", "reserved")}


class _Unsuitable(Exception):
    """The file is not a store that can be used; the text says why."""


def examine(path: Path, *, attempts: int = ATTEMPTS) -> int | None:
    """Check a file, and return the version of its tables; None for a new file. One that does not exist is created.

    Raises:
        StoreUnusable: It is not a store, or is damaged.
        OSError: It cannot be read.
        sqlite3.Error: SQLite cannot read it.
    """
    try:
        with path.open("rb") as file:
            head = file.read(len(MAGIC))
    except FileNotFoundError:
        flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        os.close(os.open(path, flags, 0o666))
        return None
    if not head:
        return None
    if head != MAGIC:
        raise _refusal(path, "it is not an SQLite file")
    before = path.stat()
    try:
        with closing(_connect(path)) as connection:
            return _check(connection, before.st_size)
    except (UnicodeError, _Unsuitable) as error:
        now = path.stat()
        reason = "it is damaged: it has texts that are not UTF-8" if isinstance(error, UnicodeError) else str(error)
    if attempts > 1 and (now.st_mtime_ns, now.st_size) != (before.st_mtime_ns, before.st_size):
        return examine(path, attempts=attempts - 1)  # another process wrote: what was read is not of one moment
    raise _refusal(path, reason)


def _refusal(path: Path, reason: str) -> StoreUnusable:
    return StoreUnusable(
        f"the store {path} cannot be used: {reason}; nothing was submitted; restore it from a backup, or use a new "
        "file, in which every request is submitted and billed again"
    )


def _connect(path: Path) -> sqlite3.Connection:
    """Open a file for reading. With no log beside it, it is opened as a file that nobody changes: no lock, no trace."""
    log = path.with_name(f"{path.name}-wal")
    is_settled = not log.exists() or not log.stat().st_size
    mode = "immutable=1" if is_settled and not path.with_name(f"{path.name}-shm").exists() else "mode=ro"
    return sqlite3.connect(f"file:{quote(str(path.absolute()))}?{mode}", uri=True, timeout=BUSY_SECONDS)


def _check(connection: sqlite3.Connection, size: int) -> int | None:
    tables = _tables(connection)
    version = _version(connection, tables) if tables else None
    if version is not None:
        _check_columns(connection, tables, version_1.metadata if version == 1 else metadata)
    if version == VERSION and size > SMALL:
        return version
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise _Unsuitable(f"it is damaged: {truncate(str(found), 200)}")
    if version is not None and requests.name in tables:
        _check_rows(connection, version_1.requests if version == 1 else requests, version)
    return version


def _tables(connection: sqlite3.Connection) -> set[str]:
    found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    return {name for (name,) in found}


def _version(connection: sqlite3.Connection, tables: set[str]) -> int | None:
    """Return the version of a file with tables; None if it has ours, but no version yet."""
    ours = metadata.tables.keys()
    if not tables & ours:
        raise _Unsuitable("it is a database of another application")
    if "kontext_meta" not in tables:
        return 1
    if missing := {"name", "value"} - _columns(connection, "kontext_meta"):
        raise _Unsuitable(f"its table kontext_meta has no column {min(missing)}")
    found = connection.execute("SELECT value FROM kontext_meta WHERE name = 'version'").fetchone()
    if found is None:
        return 1
    version = str(found[0])
    if not version.isdecimal() or not 1 <= int(version) <= VERSION:
        raise _Unsuitable(
            f"it was written by a newer version of kontext_async (schema {truncate(version, 20)}; this version "
            f"supports {VERSION}): update kontext_async"
        )
    return int(version)


def _check_columns(connection: sqlite3.Connection, tables: set[str], expected: MetaData) -> None:
    for table in expected.sorted_tables:
        if table.name not in tables:
            continue
        if missing := sorted({column.name for column in table.columns} - _columns(connection, table.name)):
            raise _Unsuitable(f"its table {table.name} has no column {missing[0]}")


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


def _check_rows(connection: sqlite3.Connection, table: Table, version: int) -> None:
    rules = " AND ".join(f"({rule}) IS 1" for rule in _rules(table, version))
    found = connection.execute(f"SELECT id FROM {table.name} WHERE NOT ({rules}) LIMIT 1").fetchone()
    if found:
        raise _odd_row(found[0])
    texts = [column.name for column in table.columns if _type_of(column.type) == "text"]
    for _ in connection.execute(f"SELECT {', '.join(texts)} FROM {table.name}"):
        pass  # each text is decoded
    for column in MONEY_OF_VERSION[version]:
        query = f"SELECT {column}, min(id) FROM {table.name} WHERE {column} IS NOT NULL GROUP BY {column}"
        for amount, number in connection.execute(query):
            try:
                read_money(amount)
            except ValueError:
                raise _odd_row(number) from None


def _rules(table: Table, version: int) -> Iterator[str]:
    for column in table.columns:
        kind = _type_of(column.type)
        kinds = "('real', 'integer')" if kind == "real" else f"('{kind}')"
        yield f"typeof({column.name}) IN {kinds}" + (f" OR {column.name} IS NULL" if column.nullable else "")
    yield from RULES
    yield from RULES_OF_VERSION[version]


def _type_of(kind: object) -> str:
    if isinstance(kind, LargeBinary):
        return "blob"
    if isinstance(kind, Float):
        return "real"
    return "integer" if isinstance(kind, Integer) else "text"


def _odd_row(number: Any) -> _Unsuitable:
    return _Unsuitable(f"its row {truncate(str(number), 20)} has values that this library does not write")
