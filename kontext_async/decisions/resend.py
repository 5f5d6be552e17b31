"""The rules for sending a failed request again: ARCHITECTURE.md, "Paying once", as code. No await, no clock.

The gateway has no idempotency key, so a create request is sent again only if it was certainly not accepted:

====================================================================  =================================================
result of the create request                                          outcome and decision
====================================================================  =================================================
no connection; a body whose last byte was not handed over             `AttemptOutcome.NOT_ACCEPTED`: sent again
429; 503 with ``Retry-After``                                         `AttemptOutcome.THROTTLED`: sent again later
                                                                      (429: until the caller's deadline)
the circuit opened before the first byte                              `AttemptOutcome.STOPPED`: sent once the circuit
                                                                      admits it; this was no attempt
a page of a proxy with 401 or 403                                     `AttemptOutcome.NOT_ACCEPTED`: sent again
3xx and other 4xx                                                     `AttemptOutcome.REJECTED`: raised
lost after the last byte; other 5xx; a 2xx that cannot be read        `AttemptOutcome.UNKNOWN`: sent again only with
                                                                      `Retries.resend_uncertain`
====================================================================  =================================================
"""

from __future__ import annotations

import enum
from http import HTTPStatus
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


class AttemptOutcome(enum.Enum):
    """The state of knowledge about a create request that did not succeed."""

    NOT_ACCEPTED = enum.auto()
    THROTTLED = enum.auto()
    STOPPED = enum.auto()
    REJECTED = enum.auto()
    UNKNOWN = enum.auto()


@frozen
class Resend:
    """The decision to send the request again, `after` so many seconds."""

    after: float


@frozen
class GiveUp:
    """The decision to raise the error. If `uncertain`, the gateway may have accepted the request nevertheless."""

    uncertain: bool


RetryDecision: TypeAlias = Resend | GiveUp


def outcome_of_response(status: int, *, has_retry_after: bool, from_gateway: bool = True) -> AttemptOutcome:
    """Return the outcome of a create request whose response has an HTTP status other than 2xx.

    Args:
        status: The HTTP status.
        has_retry_after: True if the response has a readable ``Retry-After``.
        from_gateway: False if the body is not the gateway's own, but a proxy's page.
    """
    if status == HTTPStatus.TOO_MANY_REQUESTS or (status == HTTPStatus.SERVICE_UNAVAILABLE and has_retry_after):
        return AttemptOutcome.THROTTLED
    if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN) and not from_gateway:
        return AttemptOutcome.NOT_ACCEPTED
    return AttemptOutcome.UNKNOWN if status >= HTTPStatus.INTERNAL_SERVER_ERROR else AttemptOutcome.REJECTED


def outcome_of_loss(*, handed_over: bool) -> AttemptOutcome:
    """Return the outcome of a create request whose connection failed: half a JSON body is no request.

    Args:
        handed_over: True if the last byte of the body was handed to the socket.
    """
    return AttemptOutcome.UNKNOWN if handed_over else AttemptOutcome.NOT_ACCEPTED


def decide_retry(
    outcome: AttemptOutcome, attempt: int, retries: Retries, random: float, retry_after: float | None = None
) -> RetryDecision:
    """Decide whether to send a create request again after an attempt that did not succeed.

    Args:
        outcome: The outcome of the attempt.
        attempt: The number of the failed attempt, from 1; 0 if none failed: one that ended with 429 did not, because
            the account is full, and one that was stopped was not sent.
        retries: The user's settings.
        random: A number from 0 to 1.
        retry_after: The ``Retry-After`` of the response, in seconds; None if it has none.
    """
    if outcome is AttemptOutcome.STOPPED:
        return Resend(0.0)
    if outcome is AttemptOutcome.REJECTED:
        return GiveUp(uncertain=False)
    if outcome is AttemptOutcome.UNKNOWN and not retries.resend_uncertain:
        return GiveUp(uncertain=True)
    if attempt >= retries.attempts:
        return GiveUp(uncertain=outcome is AttemptOutcome.UNKNOWN)
    return Resend(retry_delay(retry_after, max(attempt, 1), retries, random))


def retry_delay(retry_after: float | None, attempt: int, retries: Retries, random: float) -> float:
    """Return the seconds to wait before a retry: ``Retry-After`` up to `Retries.max_retry_after`, else a backoff.

    A little is added to ``Retry-After``, so that clients that were throttled together do not return together.
    """
    if retry_after is None:
        return backoff(attempt, retries, random)
    return min(retry_after, retries.max_retry_after) + 0.1 * random * retries.backoff_initial


def backoff(attempt: int, retries: Retries, random: float) -> float:
    """Return the seconds to wait after the failed `attempt` (from 1): doubled each time, bounded, half of it random."""
    doublings = min(attempt - 1, 64)
    return float(min(retries.backoff_max, retries.backoff_initial * 2.0**doublings) * (1 + random) / 2)
