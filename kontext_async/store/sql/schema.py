"""The tables of the store, version 2, for SQLite and PostgreSQL. One database may contain several runs.

Money is text, exactly as the gateway reported it, and times are Unix seconds, except for the lives of workers, which
are seconds of the database's own clock. Numbers of rows and workers are never used again, so that a step that comes
late finds its own row or none.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)

__all__ = [
    "FOUND_BY_STATE",
    "NOT_RECEIVED",
    "VERSION",
    "accounts",
    "folders",
    "meta",
    "metadata",
    "requests",
    "runs",
    "second_tasks",
    "workers",
]

VERSION = 2
"""The version of these tables. A store with a higher version was written by a newer version of this library."""

FOUND_BY_STATE = "state IN ('intent', 'uncertain', 'accepted', 'finished')"
NOT_RECEIVED = "received_at IS NULL AND state IN ('uncertain', 'accepted', 'finished')"
"""The conditions of partial indexes. A query repeats such a condition word for word: SQLite compares the words."""

metadata = MetaData()

Number = BigInteger().with_variant(Integer, "sqlite")


def _number() -> Column[int]:
    return Column("id", Number, Identity(), primary_key=True)


meta = Table(
    "kontext_meta",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

runs = Table(
    "kontext_runs",
    metadata,
    _number(),
    Column("name", Text, unique=True, nullable=False),
    Column("execution", Integer, nullable=False, server_default="0"),  # executions; 0 for runs that are no bulk runs
    Column("spent", Text, nullable=False, server_default="0"),  # USD
    sqlite_autoincrement=True,
)

accounts = Table(
    "kontext_accounts",
    metadata,
    _number(),
    Column("gateway", Text, nullable=False),
    Column("base", Text, nullable=False),
    Column("name", Text, nullable=False),
    UniqueConstraint("gateway", "base", "name", name="kontext_accounts_once"),
    sqlite_autoincrement=True,
)

workers = Table(
    "kontext_workers",
    metadata,
    _number(),
    Column("token", LargeBinary(16), unique=True, nullable=False),
    Column("alive_until", Float(53), nullable=False),
    Column("boot", Text, nullable=False),  # the start of the machine that the time belongs to
    sqlite_autoincrement=True,
)

folders = Table(
    "kontext_folders",
    metadata,
    _number(),
    Column("token", LargeBinary(16), unique=True, nullable=False),
    Column("path", Text, nullable=False),
    sqlite_autoincrement=True,
)

requests = Table(
    "kontext_requests",
    metadata,
    _number(),
    Column("run_id", Number, nullable=False),
    Column("key", Text, nullable=False),
    Column("state", Text, nullable=False),
    Column("attempt", Integer, nullable=False, server_default="0"),
    Column("owner", Number),
    Column("account", Number),
    Column("digest", LargeBinary(32), nullable=False),
    Column("model", Text, nullable=False),
    Column("images", SmallInteger, nullable=False),
    Column("prompt", Text, nullable=False),
    Column("fields", Text),  # JSON; NULL is {}
    Column("uncertain_attempts", Integer, nullable=False, server_default="0"),
    Column("reserved", Text),  # USD
    Column("task_id", Text),
    Column("reference", Text),
    Column("cost", Text),  # USD
    Column("seconds", Float(53)),
    Column("result", Text),  # JSON
    Column("error", Text),  # JSON
    Column("folder", Number),
    Column("files", Text),  # JSON: names within the folder, and sizes; NULL is []
    Column("position", BigInteger),
    Column("execution", Integer, nullable=False, server_default="0"),
    Column("completion", BigInteger),
    Column("intended_at", Float(53)),
    Column("accepted_at", Float(53)),
    Column("completed_at", Float(53)),
    Column("received_at", Float(53)),
    UniqueConstraint("run_id", "key", name="kontext_requests_key"),
    sqlite_autoincrement=True,
)

second_tasks = Table(
    "kontext_second_tasks",
    metadata,
    Column("row_id", Number, primary_key=True, autoincrement=False),
    Column("task_id", Text, primary_key=True),
    Column("run_id", Number, nullable=False),
    Column("key", Text, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("reference", Text),
    Column("account", Number),
    Column("state", Text, nullable=False),
    Column("cost", Text),  # USD
    Column("accepted_at", Float(53), nullable=False),
    Column("received_at", Float(53)),
)


def _index(name: str, *columns: Column[int], where: str) -> Index:
    return Index(name, *columns, sqlite_where=text(where), postgresql_where=text(where))


_index("kontext_requests_by_state", requests.c.run_id, requests.c.state, requests.c.id, where=FOUND_BY_STATE)
_index("kontext_requests_unreceived", requests.c.id, requests.c.run_id, where=NOT_RECEIVED)
_index("kontext_requests_reserved", requests.c.run_id, requests.c.reserved, where="reserved IS NOT NULL")
_index("kontext_requests_completed", requests.c.folder, requests.c.completion, where="completion IS NOT NULL")
