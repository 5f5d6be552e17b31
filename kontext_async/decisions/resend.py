"""May this failed request be sent again? DESIGN.md, "Paying once", as code. No await, no clock.

The gateway has no idempotency key, so a create is sent again only where it was certainly not accepted:

====================================================================  =================================
what happened to a create                                              fate
====================================================================  =================================
no connection; a body that was not handed over to its last byte        `Fate.NOT_ACCEPTED`: sent again
429; 503 with ``Retry-After``                                          `Fate.HELD_BACK`: sent again later
3xx and other 4xx                                                      `Fate.REFUSED`: raised
lost after the last byte; other 5xx; a 2xx that cannot be read         `Fate.UNKNOWN`: never unasked
====================================================================  =================================
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, TypeAlias

from attrs import frozen

if TYPE_CHECKING:
    from kontext_async.settings import Retries

__all__ = ["Fate", "GiveUp", "NextStep", "Resend", "backoff", "fate_of_answer", "fate_of_loss", "next_step", "wait_for"]

TOO_MANY_REQUESTS = 429
SERVICE_UNAVAILABLE = 503
SERVER_ERRORS = 500


class Fate(enum.Enum):
    """What is known about a create request that did not succeed."""

    NOT_ACCEPTED = enum.auto()
    HELD_BACK = enum.auto()
    REFUSED = enum.auto()
    UNKNOWN = enum.auto()


@frozen
class Resend:
    """Send it again `after` so many seconds."""

    after: float


@frozen
class GiveUp:
    """Raise what was seen. With `uncertain`, it may have been accepted all the same."""

    uncertain: bool


NextStep: TypeAlias = Resend | GiveUp


def fate_of_answer(status: int, *, names_wait: bool) -> Fate:
    """The fate of a create that was answered with an HTTP status other than 2xx.

    Args:
        status: The HTTP status.
        names_wait: Whether the answer has a ``Retry-After`` that can be read.
    """
    if status == TOO_MANY_REQUESTS or (status == SERVICE_UNAVAILABLE and names_wait):
        return Fate.HELD_BACK
    return Fate.UNKNOWN if status >= SERVER_ERRORS else Fate.REFUSED


def fate_of_loss(*, handed_over: bool) -> Fate:
    """The fate of a create whose connection failed: half a JSON body is no request.

    Args:
        handed_over: Whether the last byte of the body was handed to the socket.
    """
    return Fate.UNKNOWN if handed_over else Fate.NOT_ACCEPTED


def next_step(fate: Fate, attempt: int, retries: Retries, random: float, retry_after: float | None = None) -> NextStep:
    """What to do after an attempt that did not succeed.

    Args:
        fate: What is known about it.
        attempt: Which one it was, from 1.
        retries: The user's settings.
        random: A number from 0 to 1.
        retry_after: The seconds that the answer asked to wait, if it did.
    """
    if fate is Fate.REFUSED:
        return GiveUp(uncertain=False)
    if fate is Fate.UNKNOWN and not retries.resend_uncertain:
        return GiveUp(uncertain=True)
    if attempt >= retries.attempts:
        return GiveUp(uncertain=fate is Fate.UNKNOWN)
    return Resend(wait_for(retry_after, attempt, retries, random))


def wait_for(retry_after: float | None, attempt: int, retries: Retries, random: float) -> float:
    """Seconds to hold back: what ``Retry-After`` names, within reason, or else a backoff.

    A little is added to a named wait, so that clients that were refused together do not come back together.
    """
    if retry_after is None:
        return backoff(attempt, retries, random)
    return min(retry_after, retries.max_retry_after) + 0.1 * random * retries.initial


def backoff(attempt: int, retries: Retries, random: float) -> float:
    """Seconds to wait after the failed `attempt` (from 1): doubling, bounded, and half of it left to chance."""
    doublings = min(attempt - 1, 64)
    return float(min(retries.maximum, retries.initial * 2.0**doublings) * (1 + random) / 2)
