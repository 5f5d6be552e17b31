"""Creates the tables of a new store, or migrates those of version 1, in one transaction.

These are numbered statements rather than alembic's: there is one step so far, it must know the locks of the releases
that it replaces, and alembic would add a dependency and a table of its own.

After the migration a release with version 1 refuses the store: it finds other columns and a higher version.
"""

from __future__ import annotations

import secrets
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Protocol

from attrs import field, frozen

from kontext_async.decisions.money import read_money
from kontext_async.errors import StoreUnusable
from kontext_async.redaction import truncate
from kontext_async.store.sql.schema import VERSION, metadata
from kontext_async.store.version_1 import RUN_NAME, folder_token

if TYPE_CHECKING:
    from kontext_async.store.sql.transaction import Transaction

__all__ = ["Identity", "Locks", "prepare", "read_identity", "read_version"]

HEX = {"SQLite": "lower(hex({}))", "PostgreSQL": "encode({}, 'hex')"}

COPY = """
INSERT INTO kontext_requests (
    run_id, key, state, attempt, digest, model, images, prompt, fields, uncertain_attempts, task_id, cost, seconds,
    error, folder, files, position, execution, completion, intended_at, accepted_at, completed_at)
SELECT o.run_id, substr({hex}, 1, 32) || '-' || o.occurrence,
    CASE o.state WHEN 'intent' THEN 'uncertain' ELSE o.state END,
    o.attempts, o.fingerprint, o.model, o.images, o.prompt, NULLIF(o.fields, '{{}}'), o.doubtful,
    CASE WHEN {is_sent} THEN NULL ELSE o.task_id END, CASE WHEN {is_sent} THEN NULL ELSE o.cost END,
    CASE WHEN {is_sent} THEN NULL ELSE o.seconds END, o.error,
    CASE WHEN o.files IS NULL AND o.completion IS NULL THEN NULL ELSE f.id END, NULLIF(o.files, '[]'),
    o.position, o.generation, o.completion, o.intended_at,
    CASE WHEN {is_sent} THEN NULL ELSE o.accepted_at END, o.completed_at
FROM kontext_old_requests AS o JOIN kontext_old_folders AS f ON f.run_id = o.run_id
ORDER BY o.run_id, o.id
"""
"""The owner of an intent is dead: releases with version 1 are locked out. The recorded URLs of images have expired."""

IS_NOT_ACCEPTED = "o.state IN ('planned', 'intent')"


@frozen(kw_only=True)
class Identity:
    """The values that distinguish a store from every other one.

    Attributes:
        text: A random text.
        salt: 32 random bytes.
    """

    text: str
    salt: bytes = field(repr=False)


class Locks(Protocol):
    """The locks of releases with version 1."""

    def acquire(self, run: str) -> None:
        """Acquire the lock of a run, until the end of the transaction.

        Raises:
            StoreUnavailable: A process of such a release uses the run.
        """


def prepare(transaction: Transaction, name: str, locks: Locks) -> Identity:
    """Create or migrate the tables, and return the identity of the store.

    Args:
        transaction: A transaction in which nobody else changes tables.
        name: The name of the store, for errors.
        locks: The locks of releases with version 1.
    """
    version = read_version(transaction, name)
    if version == 1:
        _migrate(transaction, locks)
    elif version is None:
        metadata.create_all(transaction.connection)
    return read_identity(transaction) or _write_identity(transaction)


def read_identity(transaction: Transaction) -> Identity | None:
    """Return the identity of a store with tables; None if it has none yet."""
    known = transaction.fetch_pairs("SELECT name, value FROM kontext_meta")
    if str(known.get("version")) != str(VERSION) or "identity" not in known:
        return None
    return Identity(text=known["identity"], salt=bytes.fromhex(known["salt"]))


def _write_identity(transaction: Transaction) -> Identity:
    identity = Identity(text=secrets.token_hex(16), salt=secrets.token_bytes(32))
    values = {"version": str(VERSION), "identity": identity.text, "salt": identity.salt.hex()}
    for key, value in values.items():
        transaction.execute(
            "INSERT INTO kontext_meta (name, value) VALUES (:key, :value) "
            "ON CONFLICT (name) DO UPDATE SET value = excluded.value",
            key=key,
            value=value,
        )
    return identity


def read_version(transaction: Transaction, name: str) -> int | None:
    """Return the version of the tables; None if there are none."""
    tables = transaction.find_tables()
    if "kontext_requests" not in tables:
        return None
    if "kontext_meta" not in tables:
        return 1
    found = transaction.fetch("SELECT value FROM kontext_meta WHERE name = 'version'")
    version = str(found[0][0]) if found else "1"
    if version.isdecimal() and 1 <= int(version) <= VERSION:
        return int(version)
    raise StoreUnusable(
        f"the store {name} was written by a newer version of kontext_async (schema {truncate(version, 20)}; this "
        f"version supports {VERSION}): update kontext_async; nothing was submitted"
    )


def _migrate(transaction: Transaction, locks: Locks) -> None:
    runs = transaction.fetch("SELECT id, name, generation FROM kontext_runs ORDER BY id")
    for _, run, _ in runs:
        locks.acquire(run)
    spent = {number: _spent(transaction, number) for number, _, _ in runs}
    transaction.execute("CREATE TEMPORARY TABLE kontext_old_requests AS SELECT * FROM kontext_requests")
    transaction.execute("DROP TABLE kontext_requests")
    transaction.execute("DROP TABLE kontext_runs")
    metadata.create_all(transaction.connection)
    transaction.execute("CREATE TEMPORARY TABLE kontext_old_folders (run_id BIGINT, id BIGINT)")
    for number, run, generation in runs:
        _write_run(transaction, number, run, generation, spent[number])
    transaction.execute(COPY.format(hex=HEX[transaction.dialect.name].format("o.fingerprint"), is_sent=IS_NOT_ACCEPTED))
    transaction.execute("DROP TABLE kontext_old_requests")
    transaction.execute("DROP TABLE kontext_old_folders")
    transaction.advance_number("kontext_runs")


def _spent(transaction: Transaction, run: int) -> Decimal:
    """Return what the rows of a run of version 1 cost, with the earlier tasks of requests that were sent again."""
    groups = transaction.fetch(
        "SELECT cost, sunk, count(*) FROM kontext_requests WHERE run_id = :run GROUP BY cost, sunk", run=run
    )
    with localcontext() as context:
        context.prec = 200
        return sum(
            (
                ((read_money(cost) if cost is not None else 0) + read_money(sunk)) * times
                for cost, sunk, times in groups
            ),
            Decimal(0),
        )


def _write_run(transaction: Transaction, number: int, run: str, generation: int, spent: Decimal) -> None:
    transaction.execute(
        "INSERT INTO kontext_runs (id, name, execution, spent) VALUES (:number, :run, :generation, :spent)",
        number=number,
        run=run,
        generation=generation,
        spent=str(spent),
    )
    path = transaction.folder if run == RUN_NAME and transaction.folder else run
    ((folder,),) = transaction.fetch(
        "INSERT INTO kontext_folders (token, path) VALUES (:token, :path) RETURNING id",
        token=folder_token(run),
        path=path,
    )
    transaction.execute(
        "INSERT INTO kontext_old_folders (run_id, id) VALUES (:run, :folder)", run=number, folder=folder
    )
