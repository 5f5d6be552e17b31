"""May this failed request be sent again? DESIGN.md, "Paying once", as code. No await, no clock.

The gateway has no idempotency key, so a create is sent again only where it was certainly not accepted:

====================================================================  =================================
what happened to a create                                              fate
====================================================================  =================================
no connection; a body that was not handed over to its last byte        `AttemptOutcome.NOT_ACCEPTED`: sent again
429; 503 with ``Retry-After``                                          `AttemptOutcome.THROTTLED`: sent again later
3xx and other 4xx                                                      `AttemptOutcome.REJECTED`: raised
lost after the last byte; other 5xx; a 2xx that cannot be read         `AttemptOutcome.UNKNOWN`: never unasked
====================================================================  =================================
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, TypeAlias

from attrs import frozen

if TYPE_CHECKING:
    from kontext_async.settings import Retries

__all__ = [
    "AttemptOutcome",
    "GiveUp",
    "Resend",
    "RetryDecision",
    "backoff",
    "decide_retry",
    "outcome_of_loss",
    "outcome_of_response",
    "retry_delay",
]

TOO_MANY_REQUESTS = 429
SERVICE_UNAVAILABLE = 503
SERVER_ERRORS = 500


class AttemptOutcome(enum.Enum):
    """What is known about a create request that did not succeed."""

    NOT_ACCEPTED = enum.auto()
    THROTTLED = enum.auto()
    REJECTED = enum.auto()
    UNKNOWN = enum.auto()


@frozen
class Resend:
    """Send it again `after` so many seconds."""

    after: float


@frozen
class GiveUp:
    """Raise what was seen. With `uncertain`, it may have been accepted all the same."""

    uncertain: bool


RetryDecision: TypeAlias = Resend | GiveUp


def outcome_of_response(status: int, *, names_wait: bool) -> AttemptOutcome:
    """The fate of a create that was answered with an HTTP status other than 2xx.

    Args:
        status: The HTTP status.
        names_wait: Whether the answer has a ``Retry-After`` that can be read.
    """
    if status == TOO_MANY_REQUESTS or (status == SERVICE_UNAVAILABLE and names_wait):
        return AttemptOutcome.THROTTLED
    return AttemptOutcome.UNKNOWN if status >= SERVER_ERRORS else AttemptOutcome.REJECTED


def outcome_of_loss(*, handed_over: bool) -> AttemptOutcome:
    """The fate of a create whose connection failed: half a JSON body is no request.

    Args:
        handed_over: Whether the last byte of the body was handed to the socket.
    """
    return AttemptOutcome.UNKNOWN if handed_over else AttemptOutcome.NOT_ACCEPTED


def decide_retry(
    fate: AttemptOutcome, attempt: int, retries: Retries, random: float, retry_after: float | None = None
) -> RetryDecision:
    """What to do after an attempt that did not succeed.

    Args:
        fate: What is known about it.
        attempt: Which one it was, from 1.
        retries: The user's settings.
        random: A number from 0 to 1.
        retry_after: The seconds that the answer asked to wait, if it did.
    """
    if fate is AttemptOutcome.REJECTED:
        return GiveUp(uncertain=False)
    if fate is AttemptOutcome.UNKNOWN and not retries.resend_uncertain:
        return GiveUp(uncertain=True)
    if attempt >= retries.attempts:
        return GiveUp(uncertain=fate is AttemptOutcome.UNKNOWN)
    return Resend(retry_delay(retry_after, attempt, retries, random))


def retry_delay(retry_after: float | None, attempt: int, retries: Retries, random: float) -> float:
    """Seconds to hold back: what ``Retry-After`` names, within reason, or else a backoff.

    A little is added to a named wait, so that clients that were refused together do not come back together.
    """
    if retry_after is None:
        return backoff(attempt, retries, random)
    return min(retry_after, retries.max_retry_after) + 0.1 * random * retries.backoff_initial


def backoff(attempt: int, retries: Retries, random: float) -> float:
    """Seconds to wait after the failed `attempt` (from 1): doubling, bounded, and half of it left to chance."""
    doublings = min(attempt - 1, 64)
    return float(min(retries.backoff_max, retries.backoff_initial * 2.0**doublings) * (1 + random) / 2)
