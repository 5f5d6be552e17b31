"""Examines an SQLite file before it is opened as a journal, and changes nothing in it. Blocks.

A journal may be damaged, cut, of another application, or from elsewhere with values that no run writes. It is then
refused, and stays as it is: nothing is created in it, and no setting of the database is touched.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from kontext_async.bulk.budget import read_money
from kontext_async.bulk.paths import open_own
from kontext_async.bulk.schema import metadata, requests
from kontext_async.bulk.states import State
from kontext_async.redaction import truncate

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["BUSY_SECONDS", "Unsuitable", "examine"]

MAGIC = b"SQLite format 3\0"
BUSY_SECONDS = 0.5
"""The longest wait for another process that has the file locked."""

TYPES = {
    "run_id": "integer",
    "id": "integer",
    "occurrence": "integer",
    "generation": "integer",
    "position": "integer",
    "attempts": "integer",
    "doubtful": "integer",
    "images": "integer",
    "model": "text",
    "prompt": "text",
    "fields": "text",
    "task_id": "text",
    "seconds": "real",
    "files": "text",
    "error": "text",
    "accepted_at": "real",
    "completed_at": "real",
    "completion": "integer",
}
"""The type of each column of a request that a run reads, apart from its state, its fingerprint and its costs."""

TEXTS = tuple(name for name, kind in TYPES.items() if kind == "text")

FILES = """files IS NULL OR CASE WHEN json_valid(files) THEN json_type(files) = 'array' AND NOT EXISTS (
    SELECT 1 FROM json_each(files) AS file WHERE file.type != 'array' OR json_array_length(file.value) != 2
    OR json_type(file.value, '$[0]') != 'text' OR json_type(file.value, '$[1]') != 'integer') END"""

RULES = (
    "typeof(fingerprint) = 'blob' AND length(fingerprint) = 32",
    f"state IN ({', '.join(repr(str(state)) for state in State)})",
    "occurrence >= 0 AND position >= 0 AND attempts >= 0 AND doubtful >= 0 AND images BETWEEN 0 AND 100",
    "max(length(prompt), length(model)) < 10000000",
    "CASE WHEN json_valid(fields) THEN json_type(fields) = 'object' END",
    "error IS NULL OR CASE WHEN json_valid(error) THEN json_type(error) = 'object' END",
    FILES,
    "state NOT IN ('accepted', 'finished', 'saved') OR task_id IS NOT NULL",
    "max(ifnull(accepted_at, 0), ifnull(completed_at, 0), ifnull(seconds, 0)) < 1e11",
    "min(ifnull(accepted_at, 0), ifnull(completed_at, 0), ifnull(seconds, 0)) >= 0",
)
"""What holds for each row that a run wrote, in SQLite's words."""


class Unsuitable(Exception):
    """The file is not a journal that can be used; the text says why. Internal: becomes `JournalUnusable`."""


def examine(path: Path) -> None:
    """Check a file. One that does not exist, or is empty, becomes a new journal.

    Raises:
        Unsuitable: It is not the journal of a run.
        OSError: It cannot be read.
        sqlite3.Error: SQLite cannot read it.
    """
    try:
        with path.open("rb") as file:
            head = file.read(len(MAGIC))
    except FileNotFoundError:
        open_own(path, "ab").close()  # a failed connection of the async driver would leave a thread
        return
    if not head:
        return
    if head != MAGIC:
        raise Unsuitable("it is not an SQLite file")
    try:
        with closing(_connect(path)) as connection:
            _check(connection)
    except UnicodeError:
        raise Unsuitable("it is damaged: it has texts that are not UTF-8") from None


def _connect(path: Path) -> sqlite3.Connection:
    """Open a file for reading. With no log beside it, it is opened as a file that nobody changes: no lock, no trace."""
    log = path.with_name(f"{path.name}-wal")
    is_settled = not log.exists() or not log.stat().st_size
    mode = "immutable=1" if is_settled and not path.with_name(f"{path.name}-shm").exists() else "mode=ro"
    return sqlite3.connect(f"file:{quote(str(path.absolute()))}?{mode}", uri=True, timeout=BUSY_SECONDS)


def _check(connection: sqlite3.Connection) -> None:
    tables = _tables(connection)
    if tables:
        _check_tables(connection, tables)
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise Unsuitable(f"it is damaged: {truncate(str(found), 200)}")
    if requests.name in tables:
        _check_rows(connection)


def _tables(connection: sqlite3.Connection) -> set[str]:
    found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%'")
    return {name for (name,) in found}


def _check_tables(connection: sqlite3.Connection, tables: set[str]) -> None:
    ours = {table.name: {column.name for column in table.columns} for table in metadata.sorted_tables}
    if not tables & ours.keys():
        raise Unsuitable("it is a database of another application")
    for name in sorted(tables & ours.keys()):
        columns = {row[1] for row in connection.execute(f"PRAGMA table_info({name})")}
        if missing := sorted(ours[name] - columns):
            raise Unsuitable(f"its table {name} has no column {missing[0]}")


def _check_rows(connection: sqlite3.Connection) -> None:
    rules = " AND ".join(f"({rule}) IS 1" for rule in _rules())
    found = connection.execute(f"SELECT id FROM {requests.name} WHERE NOT ({rules}) LIMIT 1").fetchone()  # noqa: S608 # our own text
    if found:
        raise _odd_row(found[0])
    for _ in connection.execute(f"SELECT {', '.join(TEXTS)} FROM {requests.name}"):  # noqa: S608 # as above
        pass  # each text is decoded
    for column in ("cost", "sunk"):
        query = f"SELECT {column}, min(id) FROM {requests.name} WHERE {column} IS NOT NULL GROUP BY {column}"  # noqa: S608 # as above
        for amount, number in connection.execute(query):
            try:
                read_money(amount)
            except ValueError:
                raise _odd_row(number) from None


def _rules() -> Iterator[str]:
    optional = {column.name for column in requests.columns if column.nullable}
    for name, kind in TYPES.items():
        kinds = "('real', 'integer')" if kind == "real" else f"('{kind}')"
        yield f"typeof({name}) IN {kinds}" + (f" OR {name} IS NULL" if name in optional else "")
    yield "sunk IS NOT NULL"
    yield from RULES


def _odd_row(number: Any) -> Unsuitable:
    return Unsuitable(f"its row {truncate(str(number), 20)} has values that no run writes")
