"""The tables of the journal, as SQLAlchemy has them: for SQLite and for PostgreSQL, with several runs in one database.

Money is text, as the gateway said it, and times are unix seconds. Rows have their ids from the run, so that they can be
written without asking the database for one.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    UniqueConstraint,
)

__all__ = ["VERSION", "meta", "metadata", "requests", "runs"]

VERSION = 1
"""Of these tables. A journal that says a higher one was written by a newer version of this library."""

metadata = MetaData()

meta = Table(
    "kontext_meta",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("value", Text, nullable=False),
)

runs = Table(
    "kontext_runs",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", String(1024), unique=True, nullable=False),
    Column("generation", Integer, nullable=False, default=0),  # counts the times that it was begun
    Column("created_at", Float, nullable=False),
)

requests = Table(
    "kontext_requests",
    metadata,
    Column("run_id", Integer, ForeignKey(runs.c.id), primary_key=True),
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("fingerprint", LargeBinary(32), nullable=False),
    Column("occurrence", Integer, nullable=False),  # the n-th request with this fingerprint, from 0
    Column("generation", Integer, nullable=False),  # the last one whose input had it
    Column("position", BigInteger, nullable=False),  # where in that input, from 0
    Column("state", String(12), nullable=False),
    Column("attempts", Integer, nullable=False, default=0),  # creates that went out
    Column("doubtful", Integer, nullable=False, default=0),  # earlier creates of which nobody knows their fate
    Column("sunk", String(40), nullable=False, default="0"),  # USD that earlier tasks of this request cost
    Column("model", Text, nullable=False),
    Column("images", SmallInteger, nullable=False),  # how many input images
    Column("prompt", Text, nullable=False),
    Column("fields", Text, nullable=False),  # JSON: what else was asked for
    Column("task_id", Text),
    Column("cost", String(40)),
    Column("seconds", Float),  # from accepted to seen finished
    Column("result", Text),  # JSON: URLs and jobs of the pictures
    Column("files", Text),  # JSON: names within the directory, and sizes
    Column("error", Text),  # JSON
    Column("intended_at", Float),
    Column("accepted_at", Float),
    Column("completed_at", Float),
    Column("completion", BigInteger),  # the order of completion, from 1
    UniqueConstraint("run_id", "fingerprint", "occurrence", name="kontext_requests_once"),
    sqlite_with_rowid=False,
)

Index(
    "kontext_requests_completed",
    requests.c.run_id,
    requests.c.completion,
    sqlite_where=requests.c.completion.is_not(None),
    postgresql_where=requests.c.completion.is_not(None),
)
