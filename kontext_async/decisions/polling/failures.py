"""What follows from failed status requests. No await, no clock."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

from kontext_async.decisions.polling.entry import FailureStreak, PollEntry

if TYPE_CHECKING:
    from kontext_async.settings import Retries

__all__ = ["FailureAction", "PollFailure", "after_failure"]


class PollFailure(enum.Enum):
    """How a status request failed."""

    FORBIDDEN = enum.auto()
    NOT_FOUND = enum.auto()
    TRANSIENT = enum.auto()


class FailureAction(enum.Enum):
    """What follows from a failed status request."""

    POLL_AGAIN = enum.auto()
    FAIL_TASK = enum.auto()
    FAIL_ALL = enum.auto()


def after_failure(task: PollEntry, failure: PollFailure, now: float, retries: Retries) -> FailureAction:
    """Take down a failed status request, and say what follows from it.

    A 401, 402 or 403 concerns every task of the account. A 404 counts once 404s have come for `not_found_grace`
    seconds: a task may not be known everywhere at once. Anything else is asked again, until the asks have failed one
    after the other for `failure_budget` seconds.
    """
    if failure is PollFailure.FORBIDDEN:
        return FailureAction.FAIL_ALL
    trouble = task.failure_streak = task.failure_streak or FailureStreak(now)
    trouble.failures += 1
    if failure is not PollFailure.NOT_FOUND:
        trouble.missing_since = None
    elif trouble.missing_since is None:
        trouble.missing_since = now
    missing = trouble.missing_since is not None and now - trouble.missing_since >= retries.not_found_grace
    spent = now - trouble.since >= retries.failure_budget
    return FailureAction.FAIL_TASK if missing or spent else FailureAction.POLL_AGAIN
