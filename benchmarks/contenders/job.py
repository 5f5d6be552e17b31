"""What a contender is told, and what it reports."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

from attrs import field, frozen

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

__all__ = ["PROMPT", "Job", "Report", "bounded"]

PROMPT = "a red fox in snow"


@frozen(kw_only=True)
class Job:
    """The work.

    Attributes:
        address: The server.
        tasks: How many pictures.
        in_flight: How many tasks may be unfinished at once.
        options: What else a contender wants to be told; any of them takes `profile`.
    """

    address: str
    tasks: int
    in_flight: int
    options: dict[str, Any] = field(factory=dict)


@frozen(kw_only=True)
class Report:
    """What the work took, in the contender's own process.

    Attributes:
        seconds: Wall time.
        cpu: Seconds of CPU.
        stall: Seconds for which the loop was held at most.
        turns: Of the loop: each has a price, whatever is done in it.
        failures: How many tasks failed, by the kind of error.
        profile: Microseconds of CPU per task by place, when the option `profile` was set.
    """

    seconds: float
    cpu: float
    stall: float
    turns: int
    failures: dict[str, int]
    profile: dict[str, dict[str, float]] = field(factory=dict)


async def bounded(make_one: Callable[[], Awaitable[object]], job: Job) -> Counter[str]:
    """Gather as many as the job has under a semaphore; count the failures."""
    semaphore = asyncio.Semaphore(job.in_flight)

    async def one() -> None:
        async with semaphore:
            await make_one()

    results = await asyncio.gather(*(one() for _ in range(job.tasks)), return_exceptions=True)
    return Counter(type(result).__name__ for result in results if result is not None)
