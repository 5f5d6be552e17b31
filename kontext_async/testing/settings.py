"""Settings for tests against an emulator: milliseconds instead of seconds."""

from __future__ import annotations

from kontext_async.settings import Limits, Outages, Polling, Retries, Settings

__all__ = ["FAST"]

FAST = Settings(
    limits=Limits(polls_per_second=2000.0),
    polling=Polling(initial_delay=0.005, interval=0.01, min_interval=0.005, max_interval=0.1, poll_cost=0.001),
    retries=Retries(backoff_initial=0.01, backoff_max=0.05, failure_budget=2.0, not_found_grace=0.2),
    outages=Outages(wait=2.0, probe_initial=0.01, probe_max=0.05),
)
"""Settings that poll and back off within milliseconds, and give up within seconds."""
