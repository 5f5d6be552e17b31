"""Calls of a store with a time limit: all that goes wrong is a `StoreError`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from kontext_async.errors import SessionClosed, StoreError, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable

__all__ = ["call_store"]

T = TypeVar("T")


async def call_store(call: Awaitable[T], limit: float) -> T:
    """Await a call of a store for up to `limit` seconds.

    Raises:
        StoreError: It failed. A foreign error becomes `StoreUnavailable` without its text, which may have parameters.
    """
    try:
        async with asyncio.timeout(limit):
            return await call
    except (StoreError, SessionClosed):
        raise
    except TimeoutError:
        reason = f"did not respond within {limit:g} s"
    except Exception as error:  # noqa: BLE001 # raised below, without the foreign error as its context
        reason = f"failed with {type(error).__name__}"
    raise StoreUnavailable(f"the store {reason}")
