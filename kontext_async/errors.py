"""Everything that this library raises.

One root, and two kinds of branches: what the caller did wrong (nothing was sent), and what went wrong elsewhere::

    KontextError                     task_id, request_id, retryable, may_be_charged: on every one
    ├── UsageError                   you misused it; nothing was sent
    │   ├── InvalidRequest           also a ValueError: field, value, rule
    │   ├── ConfigurationError       no key, bad URL, contradictory settings
    │   └── SessionClosed            also: never started, used on another loop
    ├── GatewayError                 they refused, or could not be reached: status, code, body (bounded)
    │   ├── AuthenticationFailed     401
    │   ├── PermissionDenied         402, 403: balance or permission
    │   ├── RequestRejected          400, 404, 413, 422, other 4xx and redirects
    │   ├── RateLimited              429, retries exhausted: retry_after
    │   ├── GatewayUnavailable       5xx, or no connection, retries exhausted
    │   └── MalformedAnswer          an answer that cannot be read
    ├── SubmissionUncertain          nobody knows whether it was accepted: fingerprint, seen, __cause__
    ├── TaskError                    the gateway has the task
    │   ├── TaskFailed               code, message
    │   ├── TaskNotFound
    │   └── TaskTimeout              waited, last_status; the task goes on
    ├── DownloadFailed               url (without its query), reason
    └── CostLimitReached             spent, limit

Texts are bounded and hold no key, no header and no image. All errors survive pickling with their class and attributes.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Self

from kontext_async.redaction import excerpt, shown_value

if TYPE_CHECKING:
    from decimal import Decimal

    from kontext_async.models import KontextRequest, TaskStatus

__all__ = [
    "AuthenticationFailed",
    "ConfigurationError",
    "CostLimitReached",
    "DownloadFailed",
    "GatewayError",
    "GatewayUnavailable",
    "InvalidRequest",
    "KontextError",
    "MalformedAnswer",
    "PermissionDenied",
    "RateLimited",
    "RequestRejected",
    "SessionClosed",
    "SubmissionUncertain",
    "TaskError",
    "TaskFailed",
    "TaskNotFound",
    "TaskTimeout",
    "UsageError",
]


MESSAGE_LENGTH = 2000
"""Characters that a text has at most, names of tasks and requests apart."""

NAME_LENGTH = 120
"""Characters of a name that a text shows at most."""


class KontextError(Exception):
    """The root of the tree.

    Attributes:
        task_id: The task's id, where there is one. With it, `KontextSession.attach` takes the task up again.
        request_id: The gateway's name for the HTTP request, where it gave one.
        retryable: Whether the same call may succeed when it is simply made again.
        may_be_charged: Whether money may have been, or be going to be, spent on what failed.
    """

    retryable: bool = False
    may_be_charged: bool = False

    def __init__(
        self,
        message: str,
        *,
        task_id: str | None = None,
        request_id: str | None = None,
        retryable: bool | None = None,
        may_be_charged: bool | None = None,
    ) -> None:
        super().__init__(excerpt(message, MESSAGE_LENGTH))
        self.task_id = task_id
        self.request_id = request_id
        if retryable is not None:
            self.retryable = retryable
        if may_be_charged is not None:
            self.may_be_charged = may_be_charged

    def __str__(self) -> str:
        known = (("task", self.task_id), ("request", self.request_id))
        notes = ", ".join(f"{name} {excerpt(value, NAME_LENGTH)}" for name, value in known if value)
        text = str(self.args[0])
        return f"{text} ({notes})" if notes else text

    def __reduce__(self) -> tuple[object, ...]:
        return _restore, (type(self), self.args, self.__dict__.copy())

    def copy(self) -> Self:
        """The same error for one more waiter: an exception that is raised in two tasks would mix their tracebacks."""
        twin = type(self).__new__(type(self), *self.args)
        twin.__dict__.update(self.__dict__)
        twin.__cause__ = self.__cause__
        return twin

    def redacted(self, secret: str) -> Self:
        """The same error, with `secret` blotted out of every text in it: an answer may echo what was sent."""
        self.args = tuple(_without(secret, value) for value in self.args)
        for name in {"body", "code", "message", "request_id", "seen"} & vars(self).keys():
            setattr(self, name, _without(secret, getattr(self, name)))
        return self

    def about(self, task_id: str, *, may_be_charged: bool | None = None) -> Self:
        """The same error, now naming the task that it concerns."""
        self.task_id = self.task_id or task_id
        if may_be_charged is not None:
            self.may_be_charged = may_be_charged
        return self


def _restore(kind: type[KontextError], args: tuple[object, ...], state: dict[str, object]) -> KontextError:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


def _without(secret: str, value: object) -> object:
    return value.replace(secret, "***") if isinstance(value, str) else value


class UsageError(KontextError):
    """The library was misused; nothing was sent."""


class InvalidRequest(UsageError, ValueError):
    """A request that the gateway would refuse, found before the gateway had all of it: nothing was paid.

    Attributes:
        field: The name of the field that is wrong, such as ``aspect_ratio`` or ``input_images[2]``.
        value: What was given, as bounded text; of bytes, only the size.
        rule: What is allowed.
    """

    def __init__(self, field: str, value: object, rule: str) -> None:
        self.field = excerpt(field, NAME_LENGTH)
        self.value = shown_value(value)
        self.rule = excerpt(rule)
        super().__init__(f"{self.field}: {self.value} is not allowed; {self.rule}")


class ConfigurationError(UsageError):
    """No key, a bad URL, contradictory settings."""


class SessionClosed(UsageError):
    """The session is closed, was never started, is used on another loop, or its background work has crashed."""


class GatewayError(KontextError):
    """The gateway refused, or could not be reached.

    Attributes:
        status: The HTTP status, None where no answer came.
        code: The gateway's own code, where it gave one.
        body: A bounded piece of the answer's body.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        body: str | None = None,
        task_id: str | None = None,
        request_id: str | None = None,
        may_be_charged: bool | None = None,
    ) -> None:
        super().__init__(message, task_id=task_id, request_id=request_id, may_be_charged=may_be_charged)
        self.status = status
        self.code = code
        self.body = body


class AuthenticationFailed(GatewayError):
    """401: the key is missing or invalid."""


class PermissionDenied(GatewayError):
    """402 or 403: the balance is too low, or the account may not do this."""


class RequestRejected(GatewayError):
    """400, 404, 413, 422, another 4xx or a redirect: the gateway does not take this request as it is."""


class RateLimited(GatewayError):
    """429 until the retries were exhausted.

    Attributes:
        retry_after: Seconds that the gateway asked to wait the last time, None where it did not say.
    """

    retryable = True
    retry_after: float | None = None


class GatewayUnavailable(GatewayError):
    """5xx, or no connection, until the retries were exhausted."""

    retryable = True


class MalformedAnswer(GatewayError):
    """An answer that cannot be read: not JSON, wrong types, cut, or too large."""


class SubmissionUncertain(KontextError):
    """A create request went out, and nobody knows whether it was accepted; its picture may be charged.

    The failure that was seen is also the error's ``__cause__``.

    Attributes:
        request: The request that was sent; None after pickling, where an input image is an open file.
        fingerprint: The request's fingerprint, a hexadecimal digest of all its fields and images.
        seen: What was seen instead of an answer, as bounded text.
    """

    may_be_charged = True

    def __init__(
        self, *, request: KontextRequest | None, fingerprint: str, seen: str, request_id: str | None = None
    ) -> None:
        self.request = request
        self.fingerprint = fingerprint
        self.seen = excerpt(seen)
        super().__init__(
            f"nobody knows whether the gateway accepted this request (fingerprint {fingerprint[:12]}): "
            f"{self.seen}; it was not sent again, because that might pay twice",
            request_id=request_id,
        )

    def __reduce__(self) -> tuple[object, ...]:
        state = self.__dict__.copy()
        try:
            pickle.dumps(self.request)
        except Exception:  # noqa: BLE001 # whatever keeps an input image from being pickled, the error must survive
            state["request"] = None
        return _restore, (type(self), self.args, state)


class TaskError(KontextError):
    """The gateway has, or had, the task."""

    may_be_charged = True


class TaskFailed(TaskError):
    """The task ended without a picture.

    Attributes:
        code: The gateway's code, where it gave one.
        message: The gateway's words, bounded.
    """

    def __init__(self, *, task_id: str, code: str | None, message: str) -> None:
        self.code = code
        self.message = excerpt(message)
        super().__init__(f"the task failed: {self.message}" + (f" [{code}]" if code else ""), task_id=task_id)


class TaskNotFound(TaskError):
    """The gateway does not know the task, or does not any more."""


class TaskTimeout(TaskError):
    """The wait ended before the task did. The task goes on and is paid for: `attach(task_id)` takes it up.

    Attributes:
        waited: Seconds that were waited.
        last_status: What the gateway said last, None where it was not asked yet.
    """

    retryable = True

    def __init__(self, *, task_id: str, waited: float, last_status: TaskStatus | None) -> None:
        self.waited = waited
        self.last_status = last_status
        super().__init__(
            f"not finished after {waited:.1f} s; the task goes on and is paid for: attach({task_id!r}) takes it up",
            task_id=task_id,
        )


class DownloadFailed(KontextError):
    """A picture could not be fetched. It is paid for: a status request gives a fresh URL while the task is known.

    Attributes:
        url: The picture's URL without its query, which may hold a signature.
        reason: What went wrong.
        status: The HTTP status, None where no answer came.
    """

    retryable = True
    may_be_charged = True

    def __init__(self, *, url: str, reason: str, status: int | None = None, task_id: str | None = None) -> None:
        self.url = excerpt(url)
        self.reason = excerpt(reason)
        self.status = status
        super().__init__(f"could not download {self.url}: {self.reason}", task_id=task_id)


class CostLimitReached(KontextError):
    """Submitting stopped before the limit would be passed.

    Attributes:
        spent: USD spent so far, together with what is still in flight.
        limit: The limit, in USD.
    """

    def __init__(self, *, spent: Decimal, limit: Decimal) -> None:
        self.spent = spent
        self.limit = limit
        super().__init__(f"{spent} USD are spent or in flight, the limit is {limit} USD: nothing more is submitted")
