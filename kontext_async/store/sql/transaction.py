"""A transaction: SQL is executed in it, synchronously. SQL is written once, with ``:name`` for parameters."""

# ruff: noqa: S608 # the words of SQL are ours; values are parameters

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

import orjson
from attrs import define, field

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from sqlalchemy import Connection

__all__ = ["MOST_RECORDS", "POSTGRESQL", "SQLITE", "VALUES_OF_RECORDS", "Dialect", "Transaction", "with_places"]

PARAMETER = re.compile(r"(?<![:\w]):([a-z]\w*)")


@define(eq=False, kw_only=True)
class Dialect:
    """The differences between the databases in SQL.

    Attributes:
        name: The name of the database.
        now: The expression for now, in seconds of the database's clock.
        boot: The expression for the start of the machine that the clock belongs to.
        lock: What makes a query lock the rows ``r`` that it finds.
        add: The expression for the exact sum of two amounts in text.
        run_in_order: The run of the row ``r``, for a query that reads many rows of a run. They are read in the order in
            which they were planned: SQLite, which keeps no statistics, would take the index of keys, read them all over
            the file, and sort all of them for each page.
        takes_json: True if a statement takes the values of many rows as one parameter, JSON.
        tables: The query for the names of our tables.
        advance: The query that lets numbers of new records begin above the existing ones; empty if that is not needed.
        placeholder: What a parameter becomes, for `re.sub`.
        in_list: The condition that a column has a value of a list.
        pack: Makes a parameter of a list, for `is_in`.
    """

    name: str
    now: str
    boot: str
    lock: str
    add: str
    run_in_order: str
    takes_json: bool
    tables: str
    advance: str
    placeholder: str
    in_list: str
    pack: Callable[[list[Any]], Any]
    _texts: dict[str, str] = field(factory=dict, init=False)

    @property
    def alive(self) -> str:
        """The condition that the owner of the row ``r`` is alive."""
        return (
            "EXISTS (SELECT 1 FROM kontext_workers AS w WHERE w.id = r.owner "
            f"AND w.boot = {self.boot} AND w.alive_until > {self.now})"
        )

    def is_in(self, column: str, parameter: str, kind: str) -> str:
        """Return the condition that a column has a value of a list.

        Args:
            column: The column.
            parameter: The name of the parameter, a value of `pack`.
            kind: The type of the values in PostgreSQL.
        """
        return self.in_list.format(column=column, parameter=parameter, kind=kind)

    def compile(self, statement: str) -> str:
        """Return a statement with parameters as the driver takes them."""
        text = self._texts.get(statement)
        if text is None:
            text = self._texts[statement] = PARAMETER.sub(self.placeholder, statement)
        return text


SQLITE = Dialect(
    name="SQLite",
    now=":now",
    boot=":boot",
    lock="",
    add="kontext_add({}, {})",
    run_in_order="r.run_id + 0",
    takes_json=False,
    tables="SELECT name FROM sqlite_master WHERE type = 'table' AND name LIKE 'kontext!_%' ESCAPE '!'",
    advance="",  # SQLite does so by itself
    placeholder=r":\1",
    in_list="{column} IN (SELECT value FROM json_each(:{parameter}))",
    pack=lambda values: orjson.dumps(values).decode(),
)

POSTGRESQL = Dialect(
    name="PostgreSQL",
    now="extract(epoch FROM statement_timestamp())::float8",
    boot="''",
    lock="FOR UPDATE OF r",
    add="(({})::numeric + ({})::numeric)::text",
    run_in_order="r.run_id",
    takes_json=True,
    tables="SELECT tablename FROM pg_tables WHERE schemaname = current_schema() AND starts_with(tablename, 'kontext_')",
    advance="SELECT setval(pg_get_serial_sequence('{table}', 'id'), max(id)) FROM {table}",
    placeholder=r"%(\1)s",
    in_list="{column} = ANY(:{parameter}::{kind}[])",
    pack=list,
)


VALUES_OF_RECORDS = "VALUES_OF_RECORDS"

MOST_RECORDS = 64
"""The most records of a statement of SQLite: more are no faster. The number of records is a power of two, so that there
are few different statements: the driver keeps 128 of them prepared."""


class Transaction:
    """An open transaction.

    Args:
        connection: The connection.
        dialect: The SQL of the database.
        clock: The parameters ``now`` and ``boot``, where the database has no such clock.
        folder: The folder of the database's file; None for a server.
    """

    def __init__(
        self, connection: Connection, dialect: Dialect, clock: dict[str, Any] | None = None, folder: str | None = None
    ) -> None:
        self.connection = connection
        self.dialect = dialect
        self.folder = folder
        self._clock = clock or {}

    def find_tables(self) -> set[str]:
        """Return the names of the tables that begin with ``kontext_``."""
        return {name for (name,) in self.fetch(self.dialect.tables)}

    def advance_number(self, table: str) -> None:
        """Let the numbers of new records of a table begin above those that were inserted with a number."""
        if self.dialect.advance:
            self.fetch(self.dialect.advance.format(table=table))

    def fetch(self, statement: str, **parameters: Any) -> Sequence[Any]:
        """Execute a query, and return the records."""
        text = self.dialect.compile(statement)
        return self.connection.exec_driver_sql(text, {**self._clock, **parameters}).fetchall()

    def fetch_pairs(self, statement: str, **parameters: Any) -> dict[Any, Any]:
        """Execute a query for two columns, and return the second ones by the first ones."""
        return dict(tuple(record) for record in self.fetch(statement, **parameters))

    def execute(self, statement: str, **parameters: Any) -> int:
        """Execute a statement, and return the number of records that it changed."""
        text = self.dialect.compile(statement)
        return self.connection.exec_driver_sql(text, {**self._clock, **parameters}).rowcount

    def fetch_values(self, statement: str, width: int, values: Sequence[Any]) -> Iterator[Any]:
        """Execute a statement for many records at once; yield the records that it returns. For SQLite.

        Args:
            statement: The statement, with `VALUES_OF_RECORDS` in the place of the values of the records.
            width: The number of the values of a record.
            values: The values of the records, one record after another.
        """
        cursor = self.connection.connection.cursor()
        first, last = 0, len(values) // width
        while first < last:
            count = min(MOST_RECORDS, 1 << (last - first).bit_length() - 1)
            cursor.execute(with_places(statement, width, count), values[first * width : (first + count) * width])
            yield from cursor.fetchall()
            first += count


@cache
def with_places(statement: str, width: int, records: int) -> str:
    """Return a statement with the places of the values of so many records, of `width` values each."""
    record = f"({', '.join(['?'] * width)})"
    return statement.replace(VALUES_OF_RECORDS, f"VALUES {', '.join([record] * records)}")
