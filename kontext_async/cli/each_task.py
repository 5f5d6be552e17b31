"""Sends a request about each of several tasks, a few at once."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import anyio

from kontext_async.errors import KontextError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

__all__ = ["request_each"]

AT_ONCE = 16

T = TypeVar("T")


async def request_each(
    references: Sequence[str], request: Callable[[str], Awaitable[T]]
) -> list[tuple[str, T | KontextError]]:
    """Return each reference with what `request` returned for it, or with its error, in the order of the references."""
    results: dict[int, T | KontextError] = {}
    free = anyio.Semaphore(AT_ONCE)

    async def send(index: int, reference: str) -> None:
        async with free:
            try:
                results[index] = await request(reference)
            except KontextError as error:
                results[index] = error

    async with anyio.create_task_group() as group:
        for index, reference in enumerate(references):
            group.start_soon(send, index, reference)
    return [(reference, results[index]) for index, reference in enumerate(references)]
