"""The tables of the journal, for SQLite and PostgreSQL. One database may contain several runs.

Money is text, as the gateway reported it, and times are Unix seconds. The run assigns the IDs of the rows, so that it
need not read them back from the database.
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
"""The version of these tables. A journal with a higher version was written by a newer version of this library."""

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
    Column("generation", Integer, nullable=False, default=0),  # the number of executions
    Column("created_at", Float, nullable=False),
)

requests = Table(
    "kontext_requests",
    metadata,
    Column("run_id", Integer, ForeignKey(runs.c.id), primary_key=True),
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("fingerprint", LargeBinary(32), nullable=False),
    Column("occurrence", Integer, nullable=False),  # the n-th request with this fingerprint, from 0
    Column("generation", Integer, nullable=False),  # the latest execution whose input contained it
    Column("position", BigInteger, nullable=False),  # the position in that input, from 0
    Column("state", String(12), nullable=False),
    Column("attempts", Integer, nullable=False, default=0),  # create requests that were sent
    Column("doubtful", Integer, nullable=False, default=0),  # earlier create requests that are uncertain
    Column("sunk", String(40), nullable=False, default="0"),  # USD that earlier tasks of this request cost
    Column("model", Text, nullable=False),
    Column("images", SmallInteger, nullable=False),  # the number of input images
    Column("prompt", Text, nullable=False),
    Column("fields", Text, nullable=False),  # JSON: the other fields of the request
    Column("task_id", Text),
    Column("cost", String(40)),
    Column("seconds", Float),  # from acceptance until completion was detected
    Column("result", Text),  # JSON: URLs and job IDs of the images
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
