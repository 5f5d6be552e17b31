"""Opens a store by its URL. The packages that a database needs are imported when they are needed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from kontext_async.errors import ConfigurationError

if TYPE_CHECKING:
    import os

    from kontext_async.settings import StoreSettings
    from kontext_async.store.base import Store

__all__ = ["store_from_url"]


def store_from_url(
    url: str | os.PathLike[str], settings: StoreSettings, *, holds_directory_lock: bool = False
) -> Store:
    """Return the store at a path or URL. It is not open yet, and nothing was done to it.

    Args:
        url: The path of an SQLite file, ``sqlite:///PATH``, or ``postgresql://HOST/DATABASE``.
        settings: The settings of the store.
        holds_directory_lock: True if this process has locked the directory of the file as releases with version 1 do.

    Raises:
        ConfigurationError: It is not the URL of a store, or a package is missing.
    """
    try:
        from kontext_async.store.sql.opening import open_address  # noqa: PLC0415 # optional dependencies
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "sqlalchemy":
            raise
        raise ConfigurationError("store: it needs a package: pip install 'kontext_async[store]'") from None
    return open_address(url, settings, holds_directory_lock=holds_directory_lock)
