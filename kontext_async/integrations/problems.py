"""Errors as problem details (RFC 9457): one table from the error tree to HTTP statuses. No I/O.

A problem is read by strangers. What it says of their request is the error's own text; what it says of the server, the
gateway and the account is the sentence of the table. `task_id` and `may_be_charged` are there when they are known.
"""

from __future__ import annotations

import math
import re
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson
from attrs import field, frozen

from kontext_async.errors import (
    CostLimitReached,
    CostUnknown,
    DownloadFailed,
    GatewayError,
    GatewayUnavailable,
    InvalidRequest,
    KontextError,
    Overloaded,
    PermissionDenied,
    RateLimited,
    RequestRejected,
    SessionError,
    StoreUnavailable,
    SubmissionUncertain,
    TaskFailed,
    TaskNotFound,
    TaskTimeout,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["MEDIA_TYPE", "Problem", "RequestTooLarge", "problem_of"]

MEDIA_TYPE = "application/problem+json"
TYPE_PREFIX = "urn:problem-type:kontext-async:"

REFUSED_CONTENT = {HTTPStatus.BAD_REQUEST, HTTPStatus.REQUEST_ENTITY_TOO_LARGE, HTTPStatus.UNPROCESSABLE_ENTITY}
"""Statuses with which the gateway refuses what the stranger wrote, and not what the server added."""

MEMBERS = ("task_id", "retryable", "may_be_charged", "fingerprint", "code", "field", "value", "rule", "retry_after")
"""The attributes of an error that a problem has as extension members, where they are known."""


class RequestTooLarge(InvalidRequest):
    """The body of a request is larger than the rules allow."""


@frozen
class Kind:
    """A kind of problem.

    Attributes:
        status: The HTTP status.
        title: What happened, for all problems of the kind.
        shows_error: True if the detail is the error's own text, which is about the stranger's request.
    """

    status: HTTPStatus
    title: str
    shows_error: bool = False


UNPROCESSABLE = HTTPStatus.UNPROCESSABLE_ENTITY
UNAVAILABLE = HTTPStatus.SERVICE_UNAVAILABLE
BAD_GATEWAY = HTTPStatus.BAD_GATEWAY

KINDS: dict[type[KontextError], Kind] = {
    RequestTooLarge: Kind(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "The request is too large", shows_error=True),
    InvalidRequest: Kind(UNPROCESSABLE, "The request is invalid", shows_error=True),
    SessionError: Kind(UNAVAILABLE, "The server is stopping"),
    PermissionDenied: Kind(UNAVAILABLE, "No image can be generated at the moment"),
    RateLimited: Kind(UNAVAILABLE, "The server is busy"),
    Overloaded: Kind(UNAVAILABLE, "The server is busy"),
    GatewayUnavailable: Kind(UNAVAILABLE, "No image can be generated at the moment"),
    GatewayError: Kind(BAD_GATEWAY, "The image service refused the request"),
    SubmissionUncertain: Kind(BAD_GATEWAY, "The image service may have accepted the request"),
    TaskNotFound: Kind(HTTPStatus.NOT_FOUND, "There is no such task"),
    TaskTimeout: Kind(HTTPStatus.GATEWAY_TIMEOUT, "The image is not ready yet"),
    TaskFailed: Kind(BAD_GATEWAY, "The image could not be generated", shows_error=True),
    DownloadFailed: Kind(BAD_GATEWAY, "The image could not be downloaded"),
    StoreUnavailable: Kind(UNAVAILABLE, "No image can be generated at the moment"),
    CostLimitReached: Kind(UNAVAILABLE, "No more images are generated"),
    CostUnknown: Kind(UNAVAILABLE, "No more images are generated"),
    KontextError: Kind(HTTPStatus.INTERNAL_SERVER_ERROR, "The server has a fault"),
}
"""The problems by the class of the error; the nearest base class counts."""

REFUSED = Kind(UNPROCESSABLE, "The image service refused the request", shows_error=True)
"""A request that the gateway refuses because of its content."""


@frozen(kw_only=True)
class Problem:
    """An error as problem details.

    Attributes:
        status: The HTTP status.
        type: The URN of the kind of problem, named after the class of the error.
        title: What happened.
        detail: What happened to this request.
        members: Extension members, such as ``task_id``, ``retryable`` and ``may_be_charged``.
        retry_after: Seconds after which the request may succeed; None if that is not known.
    """

    status: int
    type: str
    title: str
    detail: str
    members: Mapping[str, Any] = field(factory=dict)
    retry_after: float | None = None

    @property
    def headers(self) -> dict[str, str]:
        """The headers of the response, apart from its media type."""
        headers = {"Cache-Control": "no-store"}
        if self.retry_after is not None and math.isfinite(self.retry_after):
            headers["Retry-After"] = str(max(1, math.ceil(self.retry_after)))
        return headers

    @property
    def body(self) -> bytes:
        """The JSON of the response."""
        return orjson.dumps(self.to_dict())

    def to_dict(self) -> dict[str, Any]:
        """Return the problem as a JSON object."""
        own = {"type": self.type, "title": self.title, "status": self.status, "detail": self.detail}
        return {**self.members, **own}


def problem_of(error: KontextError) -> Problem:
    """Return an error as problem details."""
    kind = _kind_of(error)
    members = {name: value for name in MEMBERS if (value := getattr(error, name, None)) is not None}
    retry_after = members.get("retry_after")
    if retry_after is not None and not math.isfinite(retry_after):
        del members["retry_after"]
    return Problem(
        status=kind.status,
        type=TYPE_PREFIX + re.sub(r"(?<=[a-z])(?=[A-Z])", "-", type(error).__name__).lower(),
        title=kind.title,
        detail=str(error.args[0]) if kind.shows_error else _describe(error, kind),
        members=members,
        retry_after=retry_after,
    )


def _kind_of(error: KontextError) -> Kind:
    if isinstance(error, RequestRejected) and error.from_gateway and error.status in REFUSED_CONTENT:
        return REFUSED
    return next(KINDS[each] for each in type(error).__mro__ if each in KINDS)


def _describe(error: KontextError, kind: Kind) -> str:
    """Return what a stranger needs to know: what became of the task, and of the money."""
    if error.task_id and kind.status is not HTTPStatus.NOT_FOUND:
        return f"{kind.title}. Task {error.task_id} keeps running, and its image can be requested by this ID."
    if isinstance(error, SubmissionUncertain):
        return f"{kind.title}, and it was not sent again."
    return f"{kind.title}. Nothing was billed for this request." if not error.may_be_charged else f"{kind.title}."
