"""Workers, accounts, runs and folders, in a transaction. Each can be repeated."""

# ruff: noqa: S608 # the words of SQL are ours; values are parameters

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from kontext_async.errors import StoreUnusable
from kontext_async.store.rows import Account, Run
from kontext_async.store.sql.records import clean

if TYPE_CHECKING:
    from kontext_async.store.sql.transaction import Transaction

__all__ = [
    "add_worker",
    "beat",
    "fetch_accounts",
    "fetch_folders",
    "fetch_run_names",
    "open_run",
    "register_account",
    "register_folder",
    "remove_worker",
]


def add_worker(transaction: Transaction, token: bytes, lease: float) -> int:
    """Register a worker that is alive for `lease` seconds, and return its number."""
    dialect = transaction.dialect
    ((number,),) = transaction.fetch(
        "INSERT INTO kontext_workers (token, alive_until, boot) "
        f"VALUES (:token, {dialect.now} + :lease, {dialect.boot}) ON CONFLICT (token) DO UPDATE "
        "SET alive_until = excluded.alive_until, boot = excluded.boot RETURNING id",
        token=token,
        lease=float(lease),
    )
    return int(number)


def beat(transaction: Transaction, worker: int, lease: float) -> None:
    """Extend the life of a worker.

    Raises:
        StoreUnusable: The store has no such worker.
    """
    dialect = transaction.dialect
    changed = transaction.execute(
        f"UPDATE kontext_workers SET alive_until = {dialect.now} + :lease, boot = {dialect.boot} WHERE id = :worker",
        worker=worker,
        lease=float(lease),
    )
    if not changed:
        raise StoreUnusable(
            "the store does not know this worker: it was emptied, or another database took its place; nothing more is "
            "submitted; restore it, and start again"
        )


def remove_worker(transaction: Transaction, worker: int) -> None:
    """End the life of a worker."""
    transaction.execute(
        f"UPDATE kontext_workers SET alive_until = {transaction.dialect.now} WHERE id = :worker",
        worker=worker,
    )


def register_account(transaction: Transaction, account: Account) -> int:
    """Return the number of an account; register it if it is new."""
    values = {"gateway": clean(account.gateway), "base": clean(account.base), "name": clean(account.name)}
    query = "SELECT id FROM kontext_accounts WHERE gateway = :gateway AND base = :base AND name = :name"
    found = transaction.fetch(query, **values)
    if not found:
        transaction.execute(
            "INSERT INTO kontext_accounts (gateway, base, name) VALUES (:gateway, :base, :name) "
            "ON CONFLICT (gateway, base, name) DO NOTHING",
            **values,
        )
        found = transaction.fetch(query, **values)
    return int(found[0][0])


def fetch_accounts(transaction: Transaction) -> dict[int, Account]:
    """Return all accounts by number."""
    records = transaction.fetch("SELECT id, gateway, base, name FROM kontext_accounts ORDER BY id")
    return {number: Account(gateway=gateway, base=base, name=name) for number, gateway, base, name in records}


def open_run(transaction: Transaction, name: str, *, create: bool, executes: bool) -> Run | None:
    """Return a run by its name."""
    name = clean(name)
    query = "SELECT id, execution, spent FROM kontext_runs WHERE name = :name"
    found = transaction.fetch(query, name=name)
    if not found and not create:
        return None
    if not found:
        transaction.execute("INSERT INTO kontext_runs (name) VALUES (:name) ON CONFLICT (name) DO NOTHING", name=name)
    if executes:
        transaction.execute("UPDATE kontext_runs SET execution = execution + 1 WHERE name = :name", name=name)
    if executes or not found:
        found = transaction.fetch(query, name=name)
    ((number, execution, spent),) = found
    return Run(id=number, name=name, execution=execution, spent=Decimal(spent))


def fetch_run_names(transaction: Transaction) -> dict[int, str]:
    """Return the names of all runs by number."""
    return transaction.fetch_pairs("SELECT id, name FROM kontext_runs ORDER BY id")


def register_folder(transaction: Transaction, token: bytes, path: str) -> int:
    """Return the number of a folder; register it if it is new."""
    query = "SELECT id FROM kontext_folders WHERE token = :token"
    found = transaction.fetch(query, token=token)
    if not found:
        transaction.execute(
            "INSERT INTO kontext_folders (token, path) VALUES (:token, :path) ON CONFLICT (token) DO NOTHING",
            token=token,
            path=clean(path),
        )
        found = transaction.fetch(query, token=token)
    return int(found[0][0])


def fetch_folders(transaction: Transaction) -> dict[int, str]:
    """Return the paths of all folders by number."""
    return transaction.fetch_pairs("SELECT id, path FROM kontext_folders ORDER BY id")
