"""Makes the store of an address."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kontext_async.store.sql.store import SqlStore
from kontext_async.store.sql.urls import SQLiteAddress, read_url

if TYPE_CHECKING:
    import os

    from kontext_async.settings import StoreSettings

__all__ = ["open_address"]


def open_address(url: str | os.PathLike[str], settings: StoreSettings, *, holds_directory_lock: bool) -> SqlStore:
    """Return the store at a path or URL: see `kontext_async.store.urls.store_from_url`."""
    address = read_url(url)
    if isinstance(address, SQLiteAddress):
        from kontext_async.store.sql.sqlite import SQLiteDatabase  # noqa: PLC0415 # each database imports its driver

        return SqlStore(SQLiteDatabase(address.path, settings, holds_directory_lock=holds_directory_lock))
    from kontext_async.store.sql.postgresql import PostgresDatabase  # noqa: PLC0415 # as above

    return SqlStore(PostgresDatabase(address, settings))
