"""The consequences of failed polls. No await, no clock."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from kontext_async.decisions.polling.entry import FailureStreak, PollEntry

if TYPE_CHECKING:
    from kontext_async.settings import Retries

__all__ = ["FailureAction", "PollFailure", "record_failure"]


class PollFailure(enum.Enum):
    """The kind of failure of a poll."""

    NOT_FOUND = enum.auto()
    TRANSIENT = enum.auto()


class FailureAction(enum.Enum):
    """The action that follows from a failed poll."""

    POLL_AGAIN = enum.auto()
    FAIL_TASK = enum.auto()


def record_failure(task: PollEntry, failure: PollFailure, now: float, retries: Retries) -> FailureAction:
    """Record a failed poll, and return the action that follows from it.

    A 404 counts once 404s have come for `Retries.not_found_grace` seconds: a task may not be known everywhere at once.
    After any other failure the task is polled again, until its polls have failed one after the other for
    `Retries.failure_budget` seconds. A refused key is confirmed first: see `decisions.circuit_breaker`.
    """
    streak = task.failure_streak = task.failure_streak or FailureStreak(now)
    streak.failures += 1
    if failure is not PollFailure.NOT_FOUND:
        streak.missing_since = None
    elif streak.missing_since is None:
        streak.missing_since = now
    grace_over = streak.missing_since is not None and now - streak.missing_since >= retries.not_found_grace
    budget_spent = now - streak.since >= retries.failure_budget
    return FailureAction.FAIL_TASK if grace_over or budget_spent else FailureAction.POLL_AGAIN
