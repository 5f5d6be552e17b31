"""A worker of arq whose jobs generate one image each, paid once by their ID. `benchmarks.soak.job_queue` kills it.

``python -m benchmarks.soak.job_queue_worker`` reads ``KONTEXT_STORE`` and ``SOAK_REDIS``.
"""

from __future__ import annotations

import os
from typing import Any

from arq import run_worker
from arq.connections import RedisSettings
from arq.worker import func

from kontext_async import KontextSession, Limits, SubmissionUncertain
from kontext_async.settings import Settings, StoreSettings

__all__ = ["JOB", "JOB_SECONDS", "UNCERTAIN", "job_settings"]

JOB = "generate"
UNCERTAIN = "uncertain"
AT_ONCE = 4
"""Jobs at once: few, so that there is something to submit after each restart."""
JOB_SECONDS = 12
"""The longest that a job may take. arq gives the jobs of a killed worker to another one 10 s after that."""


def job_settings() -> Settings:
    """Return the settings of a session whose death is noticed after 3 seconds."""
    return Settings(limits=Limits(max_in_flight=AT_ONCE), store=StoreSettings(lease=3.0, beat=1.0))


async def open_session(context: dict[str, Any]) -> None:
    """Open the session of the worker."""
    context["session"] = await KontextSession(store=os.environ["KONTEXT_STORE"], settings=job_settings()).start()


async def close_session(context: dict[str, Any]) -> None:
    """Close the session of the worker."""
    await context["session"].aclose()


async def generate(context: dict[str, Any], prompt: str) -> str:
    """Generate an image, and return its task ID."""
    session: KontextSession = context["session"]
    try:
        generation = await session.generate(prompt, key=context["job_id"])
    except SubmissionUncertain:
        return UNCERTAIN
    return generation.task_id


def main() -> None:
    """Run the worker until a signal ends it."""
    run_worker(
        {
            "functions": [func(generate, name=JOB, max_tries=100)],  # type: ignore[arg-type] # arq's own example
            "redis_settings": RedisSettings.from_dsn(os.environ["SOAK_REDIS"]),
            "on_startup": open_session,
            "on_shutdown": close_session,
            "max_jobs": AT_ONCE,
            "job_timeout": JOB_SECONDS,
            "poll_delay": 0.1,
        }
    )


if __name__ == "__main__":
    main()
