"""The errors of databases, drivers and the system as errors of this package.

A text says what happened and what to do. It contains no statement, no parameter and no password: of a driver's message
only the first sentence is kept, and nothing of one about values.
"""

from __future__ import annotations

import errno
import re
import sqlite3
from typing import Any

from kontext_async.errors import StoreError, StoreUnavailable, StoreUnusable
from kontext_async.redaction import truncate

__all__ = ["failure_of", "is_disconnect", "is_repeatable", "postgres_failure", "sqlite_failure"]

REASON_LENGTH = 300

SQLITE_PASSING = {
    sqlite3.SQLITE_BUSY: "another process has it locked",
    sqlite3.SQLITE_LOCKED: "another process has it locked",
    sqlite3.SQLITE_FULL: "the disk is full",
    sqlite3.SQLITE_IOERR: "the disk could not be read or written",
    sqlite3.SQLITE_NOMEM: "there is no memory left",
    sqlite3.SQLITE_INTERRUPT: "a statement took too long",
    sqlite3.SQLITE_PROTOCOL: "another process has it locked",
    sqlite3.SQLITE_CANTOPEN: "the file cannot be opened",
}
SQLITE_LASTING = {
    sqlite3.SQLITE_READONLY: "it cannot be written: give this user the right to write the file and its folder",
    sqlite3.SQLITE_PERM: "it cannot be written: give this user the right to write the file and its folder",
    sqlite3.SQLITE_AUTH: "it cannot be written: give this user the right to write the file and its folder",
    sqlite3.SQLITE_CORRUPT: "it is damaged: restore it from a backup",
    sqlite3.SQLITE_NOTADB: "it is not an SQLite file",
}

PASSING_CLASSES = frozenset({"08", "25", "40", "53", "55", "57", "58", "XX"})
"""Classes of SQLSTATE of what may pass: connections, transactions, resources, locks, operators, the system.

https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

REPEATED = frozenset({"40001", "40P01"})
"""The server undid the transaction because of another one: it is repeated at once."""

ADVICE = {
    "28P01": "check the user and the password",
    "28000": "check the user, and what pg_hba.conf of the server allows",
    "3D000": "create the database, or check its name",
    "42501": "give this user the right to SELECT, INSERT, UPDATE and DELETE in the tables of the store, or to CREATE "
    "in its schema while there are none",
    "25006": "it is read-only: connect to the primary server (target_session_attrs=read-write)",
    "53300": "it has too many connections: allow more, or put PgBouncer in front of it",
    "53100": "its disk is full",
    "42P01": "its tables are gone: restore them from a backup",
    "42703": "its tables were changed: restore them from a backup",
}

REFUSALS = (
    (re.compile(r"password authentication failed|no password supplied"), ADVICE["28P01"]),
    (
        re.compile(r"no pg_hba\.conf entry|authentication failed|role .* does not exist|is not permitted"),
        ADVICE["28000"],
    ),
    (re.compile(r"database .* does not exist|no such database"), ADVICE["3D000"]),
    (re.compile(r"permission denied for database"), "give this user the right to connect"),
    (re.compile(r"does not support SSL|certificate|SSL error: .*verif"), "check sslmode and the certificates"),
    (re.compile(r"definition of service"), "check the service and PGSERVICEFILE"),
    (re.compile(r"invalid (port|sslmode|channel_binding|integer)|invalid value"), "check the URL and the PG variables"),
    (re.compile(r"unsupported startup parameter"), "remove `options` from the URL, or connect past PgBouncer"),
)
"""The texts of connections that were refused for good, and the advice for each. libpq gives no SQLSTATE for these."""

READ_ONLY = re.compile(r"session is (not )?read-only|not in hot standby|server is in hot standby")


def failure_of(error: BaseException, name: str) -> StoreError:
    """Return the error of this package for an error of a database, a driver or the system.

    Args:
        error: The error.
        name: The name of the store, without a password.
    """
    cause = getattr(error, "orig", None) or error
    if isinstance(cause, StoreError):
        return cause
    if isinstance(cause, sqlite3.Error):
        return sqlite_failure(cause, name)
    if isinstance(cause, OSError):
        return StoreUnavailable(f"the store {name} cannot be reached: {_system_reason(cause)}")
    module = type(cause).__module__
    is_refused_here = type(cause).__name__ in {"ProgrammingError", "DataError"} and _state_of(cause) is None
    if module.startswith(("psycopg", "sqlalchemy")) and not is_refused_here:
        return postgres_failure(cause, name)
    failure = StoreUnusable(f"the store {name} failed with {type(cause).__name__}: this should not have happened")
    failure.__cause__ = error  # a fault of ours: its traceback is what helps
    return failure


def sqlite_failure(error: sqlite3.Error, name: str) -> StoreError:
    """Return the error of this package for an error of SQLite."""
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # without the extended part
    if code in SQLITE_PASSING:
        return StoreUnavailable(f"the store {name} cannot be used now: {SQLITE_PASSING[code]}")
    if "decode to UTF-8" in str(error):  # sqlite3 shows the text itself
        return StoreUnusable(f"the store {name} is damaged: it has texts that are not UTF-8; restore it from a backup")
    reason = SQLITE_LASTING.get(code) or truncate(str(error), REASON_LENGTH)
    return StoreUnusable(f"the store {name} cannot be used: {reason}")


def postgres_failure(error: BaseException, name: str) -> StoreError:
    """Return the error of this package for an error of psycopg, or of SQLAlchemy."""
    state = _state_of(error)
    if state is None:
        return _connection_failure(error, name)
    advice = ADVICE.get(state)
    reason = f"{_reason_of(error, state)}" + (f"; {advice}" if advice else "")
    if state[:2] in PASSING_CLASSES:
        return StoreUnavailable(f"the store {name} cannot be used now: {reason}")
    return StoreUnusable(f"the store {name} cannot be used: {reason}")


def is_disconnect(error: BaseException) -> bool:
    """Return True if the connection was lost before the statement."""
    cause = getattr(error, "orig", None) or error
    state = _state_of(cause)
    is_driver_error = type(cause).__module__.startswith("psycopg")
    return is_driver_error and (state is None or state[:2] in {"08", "57"})


def is_repeatable(error: BaseException) -> bool:
    """Return True if the server undid the transaction because of another one."""
    cause = getattr(error, "orig", None) or error
    return _state_of(cause) in REPEATED


def _state_of(error: BaseException) -> str | None:
    """Return the SQLSTATE of an error that a server sent; None for one of the driver itself."""
    state: str | None = getattr(error, "sqlstate", None)
    return state


def _connection_failure(error: BaseException, name: str) -> StoreError:
    text = " ".join(str(error).split())
    for pattern, advice in REFUSALS:
        if pattern.search(text):
            return StoreUnusable(f"the store {name} refused the connection: {_shorten(text)}; {advice}")
    if READ_ONLY.search(text):
        return StoreUnavailable(f"the store {name} cannot be used now: {ADVICE['25006']}")
    return StoreUnavailable(f"the store {name} cannot be reached: {_shorten(text) or type(error).__name__}")


def _reason_of(error: BaseException, state: str) -> str:
    """Return the first sentence of the server's message; of one about a value, only its code."""
    message = getattr(getattr(error, "diag", None), "message_primary", None)
    if not message or state[:2] in {"22", "23"}:
        return f"the server refused a statement (SQLSTATE {state})"
    return _shorten(message)


def _shorten(text: Any) -> str:
    return truncate(" ".join(str(text).split()), REASON_LENGTH)


def _system_reason(error: OSError) -> str:
    if isinstance(error, TimeoutError) and not error.errno:
        return "it did not respond in time"
    name = errno.errorcode.get(error.errno or 0, "")
    return error.strerror or name or type(error).__name__
