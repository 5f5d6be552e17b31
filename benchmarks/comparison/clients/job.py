"""The job that a client gets, and its report."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["PROMPT", "ClientReport", "Job", "run_bounded"]

PROMPT = "a red fox in snow"


@frozen(kw_only=True)
class Job:
    """The work that a client does.

    Attributes:
        address: The server's base URL.
        tasks: How many images to create.
        in_flight: How many tasks may be unfinished at once.
        options: Options of the client; every client accepts `profile`.
    """

    address: str
    tasks: int
    in_flight: int
    options: dict[str, Any] = field(factory=dict)


@frozen(kw_only=True)
class ClientReport:
    """The cost of a job in the client's own process.

    Attributes:
        seconds: Wall time.
        cpu: Seconds of CPU.
        stall: Seconds of the longest turn of the loop.
        turns: Turns of the loop: each has a cost of its own.
        failures: How many tasks failed, by error type.
        profile: Microseconds of CPU per task by place, when the option `profile` is set.
    """

    seconds: float
    cpu: float
    stall: float
    turns: int
    failures: dict[str, int]
    profile: dict[str, dict[str, float]] = field(factory=dict)


async def run_bounded(create_one: Callable[[], Awaitable[object]], job: Job) -> Counter[str]:
    """Create all images of the job under a semaphore, and return the failures by error type."""
    semaphore = asyncio.Semaphore(job.in_flight)

    async def create_under_semaphore() -> None:
        async with semaphore:
            await create_one()

    results = await asyncio.gather(*(create_under_semaphore() for _ in range(job.tasks)), return_exceptions=True)
    return Counter(type(result).__name__ for result in results if result is not None)
