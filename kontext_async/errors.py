"""Every error that this library raises.

The tree has one root. Usage errors say that the call is wrong, and nothing was sent. The others do not::

    KontextError                     task_id, reference, request_id, retryable, may_be_charged: on every error
    ├── UsageError                   the call is wrong; nothing was sent
    │   ├── InvalidRequest           also a ValueError: field, value, rule
    │   └── ConfigurationError       no key, bad URL, contradictory settings
    ├── SessionError                 the session cannot be used, or ended while the caller waited
    │   ├── SessionClosed            closed, not started, or used on another event loop
    │   └── SessionCrashed           the session's background work failed: __cause__
    ├── GatewayError                 the gateway refused, or was unreachable: status, code, body, from_gateway
    │   ├── AuthenticationFailed     401
    │   ├── PermissionDenied         402, 403, or a code about the balance: concerns_balance
    │   ├── RequestRejected          400, 404, 413, 422, other 4xx and redirects
    │   ├── RateLimited              429, retries exhausted; not for a create request: retry_after
    │   ├── GatewayUnavailable       5xx, or no connection, retries exhausted
    │   │   └── GatewayOutage        submitting has stopped; nothing was sent: retry_after, __cause__
    │   └── InvalidResponse          the response is unreadable
    ├── SubmissionUncertain          the gateway may have accepted the request: fingerprint, seen, __cause__
    ├── TaskError                    the gateway has, or had, the task
    │   ├── TaskFailed               code, message
    │   │   ├── TaskModerated        the gateway refuses the prompt, an input or the result; nothing is billed
    │   │   └── TaskCancelled        it was cancelled, by this session or elsewhere: cost
    │   ├── TaskNotFound
    │   └── TaskTimeout              also a TimeoutError: waited, last_status, cancelled; the task may keep running
    ├── DownloadFailed               url (without its query), reason
    ├── StoreError                   the store of paid work cannot be used
    │   ├── StoreUnavailable         it cannot be reached or written now
    │   └── StoreUnusable            it is not a store, is damaged, newer, or refuses the user
    ├── Overloaded                   the queue is full, or the session drains; nothing was sent: retry_after
    ├── CallerLeft                   the caller left before the result was there
    ├── CostUnknown                  there is a cost limit, and the gateway does not report what images cost
    └── CostLimitReached             spent, limit

Texts are bounded and contain no key, no header and no image. All errors can be pickled, with class and attributes.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from decimal import Decimal
from http import HTTPStatus
from typing import Any

from kontext_async.base_errors import ConfigurationError, InvalidRequest, KontextError, UsageError, restore
from kontext_async.cancellation import Cancellation, CancelOutcome
from kontext_async.models import KontextRequest, TaskStatus, request_to_json_if_possible
from kontext_async.redaction import truncate
from kontext_async.serialization import register_hooks

__all__ = [
    "AuthenticationFailed",
    "CallerLeft",
    "ConfigurationError",
    "CostLimitReached",
    "CostUnknown",
    "DownloadFailed",
    "GatewayError",
    "GatewayOutage",
    "GatewayUnavailable",
    "InvalidRequest",
    "InvalidResponse",
    "KontextError",
    "Overloaded",
    "PermissionDenied",
    "RateLimited",
    "RequestRejected",
    "SessionClosed",
    "SessionCrashed",
    "SessionError",
    "StoreError",
    "StoreUnavailable",
    "StoreUnusable",
    "SubmissionUncertain",
    "TaskCancelled",
    "TaskError",
    "TaskFailed",
    "TaskModerated",
    "TaskNotFound",
    "TaskTimeout",
    "UsageError",
]

BALANCE_CODES = frozenset(str(code) for code in range(40201, 40209))
"""The gateway's codes about the balance: PROTOCOL.md, "Errors over HTTP"."""

BALANCE_WORDS = re.compile(r"balance|insufficient[ _-]?(credit|fund)|arrears", re.IGNORECASE)
"""The words of a refusal without such a code."""


class SessionError(KontextError):
    """The session cannot be used, or it ended while the caller waited.

    With a `task_id`, the task keeps running on the gateway: attach it in another session.
    """


class SessionClosed(SessionError):
    """The session is closed, was not started, or belongs to another event loop."""


class SessionCrashed(SessionError):
    """The session's background work failed with the error in ``__cause__``. Report it as a bug."""


class GatewayError(KontextError):
    """The gateway refused the request, or was unreachable.

    Attributes:
        status: The HTTP status; None if there was no response.
        code: The gateway's error code, if it gave one.
        body: The start of the response body, bounded.
        from_gateway: True if the body explains the refusal as the gateway does, in JSON; False for a page of a proxy
            or a firewall, for an empty body, and if there was no response.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str | None = None,
        body: str | None = None,
        from_gateway: bool = False,
        task_id: str | None = None,
        request_id: str | None = None,
        may_be_charged: bool | None = None,
    ) -> None:
        super().__init__(message, task_id=task_id, request_id=request_id, may_be_charged=may_be_charged)
        self.status = status
        self.code = code
        self.body = body
        self.from_gateway = from_gateway


class AuthenticationFailed(GatewayError):
    """401: the API key is missing or invalid."""


class PermissionDenied(GatewayError):
    """402, 403, or one of the gateway's codes about the balance: it is too low, or the account lacks permission."""

    @property
    def concerns_balance(self) -> bool:
        """True if the balance is too low, as far as the status, the code or the gateway's words show."""
        if self.status == HTTPStatus.PAYMENT_REQUIRED or self.code in BALANCE_CODES:
            return True
        return self.from_gateway and bool(BALANCE_WORDS.search(f"{self.code} {self.args[0]}"))


class RequestRejected(GatewayError):
    """400, 404, 413, 422, another 4xx or a redirect: the gateway refuses the request as it stands."""


class RateLimited(GatewayError):
    """429 on every attempt, until the retries were exhausted.

    A create request is repeated after 429 until the caller's deadline: it waits as for a slot.

    Attributes:
        retry_after: Seconds to wait, from the last ``Retry-After`` header; None if there was none.
    """

    retryable = True
    retry_after: float | None = None


class GatewayUnavailable(GatewayError):
    """5xx or no connection on every attempt, until the retries were exhausted."""

    retryable = True


class GatewayOutage(GatewayUnavailable):
    """Submitting has stopped because of an outage: the circuit breaker is open. Nothing was sent for this request.

    ``__cause__`` is the error that opened the circuit.

    Attributes:
        retry_after: Seconds until the session probes the gateway again.
    """

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class InvalidResponse(GatewayError):
    """The response is unreadable: not JSON, wrong types, truncated, or too large."""


class StoreError(KontextError):
    """The store of paid work cannot be used. Without it, paid requests are not known: nothing more is submitted.

    Tasks that the gateway has accepted are still awaited.
    """


class StoreUnavailable(StoreError):
    """The store could not be reached or written within the time allowed. If a request failed with it, nothing was sent.

    A later attempt may succeed.
    """

    retryable = True


class StoreUnusable(StoreError):
    """The store is missing, damaged, not writable, of another application, or newer than this library."""


class SubmissionUncertain(KontextError):
    """The create request was sent, but its outcome is unknown: the gateway may have accepted and billed it.

    ``__cause__`` is the failure that left the outcome open.

    Attributes:
        request: The request that was sent; None after pickling if an input image is an open file.
        fingerprint: The request's fingerprint: a hexadecimal digest of all its fields and images.
        seen: The failure as bounded text, such as ``no response within 120 s``.
    """

    may_be_charged = True

    def __init__(
        self, *, request: KontextRequest | None, fingerprint: str, seen: str, request_id: str | None = None
    ) -> None:
        self.request = request
        self.fingerprint = fingerprint
        self.seen = truncate(seen)
        super().__init__(
            f"the gateway may have accepted this request (fingerprint {fingerprint[:12]}): {self.seen}; "
            "it was not resent, because a second request may be billed too",
            request_id=request_id,
        )

    def __reduce__(self) -> tuple[object, ...]:
        state = self.__dict__.copy()
        try:
            pickle.dumps(self.request)
        except Exception:  # noqa: BLE001 # whatever keeps an input image from being pickled, the error must survive
            state["request"] = None
        return restore, (type(self), self.args, state)


class TaskError(KontextError):
    """The gateway has, or had, the task."""

    may_be_charged = True


class TaskFailed(TaskError):
    """The task ended without an image.

    Attributes:
        code: The gateway's error code, if it gave one.
        message: The gateway's message, bounded.
    """

    def __init__(self, *, task_id: str, code: str | None, message: str) -> None:
        self.code = code
        self.message = truncate(message)
        super().__init__(f"the task failed: {self.message}" + (f" [{code}]" if code else ""), task_id=task_id)


class TaskModerated(TaskFailed):
    """The gateway refuses the prompt, an input image or the result. Nothing is billed; the same request fails again.

    `message` has all reasons that the gateway gave.
    """

    may_be_charged = False


class TaskCancelled(TaskFailed):
    """The task was cancelled, by `GenerationTask.cancel`, by `Timeouts.cancel_on_timeout`, or elsewhere.

    It ended without an image. `may_be_charged` is False only if the gateway stated that it bills nothing.

    Attributes:
        cost: USD billed for the task, as far as the gateway stated it; None if it did not.
    """

    cost: Decimal | None = None


class TaskNotFound(TaskError):
    """The gateway does not know the task, or no longer keeps it."""


class TaskTimeout(TaskError, TimeoutError):
    """The wait ended before the task did. The task keeps running and is billed: resume it with `attach(reference)`.

    With `Timeouts.cancel_on_timeout`, it was cancelled if `cancelled` says so: then it has ended without an image.

    Attributes:
        waited: The length of the wait, in seconds.
        last_status: The last known status; None if the task was not polled yet.
        cancelled: What became of the attempt to cancel the task; None if there was none.
    """

    retryable = True

    def __init__(
        self,
        *,
        task_id: str,
        waited: float,
        last_status: TaskStatus | None,
        reference: str | None = None,
        cancelled: CancelOutcome | None = None,
    ) -> None:
        self.waited = waited
        self.last_status = last_status
        self.reference = reference
        self.cancelled = cancelled
        consequence = f"the task keeps running and is billed: resume it with attach({reference or task_id!r})"
        if cancelled is not None and cancelled.cancellation is Cancellation.IN_TIME:
            billed = "may be billed" if cancelled.may_be_charged else "is not billed"
            consequence = f"the task was cancelled, and {billed}"
        super().__init__(
            f"not finished after {waited:.1f} s; {consequence}",
            task_id=task_id,
            may_be_charged=None if cancelled is None else cancelled.may_be_charged,
        )


class DownloadFailed(KontextError):
    """An image could not be downloaded. It is paid for, and a status request returns a fresh URL while the task exists.

    Attributes:
        url: The image's URL without its query, which may contain a signature.
        reason: Why the download failed.
        status: The HTTP status; None if there was no response.
    """

    retryable = True
    may_be_charged = True

    def __init__(self, *, url: str, reason: str, status: int | None = None, task_id: str | None = None) -> None:
        self.url = truncate(url)
        self.reason = truncate(reason)
        self.status = status
        super().__init__(f"could not download {self.url}: {self.reason}", task_id=task_id)


class Overloaded(KontextError):
    """The request could not be submitted now: too many wait already, or it waited too long. Nothing was sent.

    Attributes:
        retry_after: Seconds after which there is room for it, as far as the durations of tasks are known. Each request
            is given a time of its own, so that those who come back do not come together.
    """

    retryable = True

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(f"{message}: nothing was sent, try again in {retry_after:.1f} s")
        self.retry_after = retry_after


class CallerLeft(KontextError):
    """The caller left before the result was there, as ``abandoned=`` said.

    Without a `task_id`, and unless `may_be_charged`, nothing was sent. With one, the task keeps running and is billed:
    resume it with `attach(task_id)`.
    """


class CostUnknown(KontextError):
    """There is a cost limit, and the gateway reports the cost neither before nor after a task, or not in USD.

    No further requests are submitted, because the limit cannot be enforced.

    Attributes:
        currency: The currency in which the gateway bills, if it is not USD.
    """

    def __init__(self, currency: str | None) -> None:
        self.currency = currency
        fault = f"bills in {currency!r} and not in USD" if currency else "does not report what images cost"
        super().__init__(
            f"the gateway {fault}, so the cost limit cannot be enforced: no further requests are submitted"
        )


class CostLimitReached(KontextError):
    """The cost limit was reached: no further requests are submitted.

    Attributes:
        spent: USD spent so far, including tasks in flight.
        limit: The limit, in USD.
    """

    def __init__(self, *, spent: Decimal, limit: Decimal) -> None:
        self.spent = spent
        self.limit = limit
        super().__init__(
            f"{spent} USD is spent or in flight and the limit is {limit} USD: no further requests are submitted"
        )


ERRORS = {name: kind for name, kind in globals().items() if isinstance(kind, type) and issubclass(kind, KontextError)}
"""The classes of the tree, by name."""

PLAIN = (str, int, float, bool)

TIMEOUT_VALUES: dict[str, Any] = {"last_status": TaskStatus, "cancelled": CancelOutcome}
"""The attributes of `TaskTimeout` that are values of their own."""


def _error_to_json(error: KontextError, converter: Any) -> dict[str, Any]:
    """Return an error as JSON: its class, its text, and its attributes. Causes and foreign attributes stay behind."""
    values: dict[str, Any] = {name: value for name, value in vars(error).items() if isinstance(value, PLAIN)}
    values |= {name: str(value) for name, value in vars(error).items() if isinstance(value, Decimal)}
    if isinstance(error, SubmissionUncertain) and (request := request_to_json_if_possible(error.request)):
        values["request"] = request
    if isinstance(error, TaskTimeout):
        values |= {name: converter.unstructure(made) for name in TIMEOUT_VALUES if (made := getattr(error, name))}
    return {"type": type(error).__name__, "text": str(error.args[0]), **values}


def _error_from_json(data: Any, converter: Any) -> KontextError:
    """Return the error that JSON describes; one of an unknown class as a `KontextError`."""
    if not isinstance(data, Mapping):
        raise InvalidRequest("error", data, "it must be an object")
    kind = ERRORS.get(str(data.get("type")), KontextError)
    values: dict[str, Any] = {name: value for name, value in data.items() if name not in ("type", "text")}
    values = dict.fromkeys(ANNOTATED.get(kind, ())) | {"task_id": None, "request_id": None} | values
    if kind is CostLimitReached:
        values |= {name: Decimal(values[name]) for name in ("spent", "limit")}
    if kind is SubmissionUncertain and values["request"]:
        values["request"] = converter.structure(values["request"], KontextRequest)
    if kind is TaskCancelled and "cost" in values:
        values["cost"] = Decimal(values["cost"])
    if kind is TaskTimeout:
        values |= {name: converter.structure(values[name], of) for name, of in TIMEOUT_VALUES.items() if values[name]}
    return restore(kind, (str(data.get("text", "")),), values)


ANNOTATED: dict[type[KontextError], tuple[str, ...]] = {
    **dict.fromkeys((each for each in ERRORS.values() if issubclass(each, GatewayError)), ("status", "code", "body")),
    SubmissionUncertain: ("request",),
    TaskFailed: ("code",),
    TaskCancelled: ("code",),
    TaskTimeout: ("last_status", "reference", "cancelled"),
    DownloadFailed: ("status",),
    CostUnknown: ("currency",),
}
"""The attributes that may be None, which JSON leaves out."""


def _register_hooks(converter: Any, _: object) -> None:
    is_error = lambda kind: isinstance(kind, type) and issubclass(kind, KontextError)  # noqa: E731 # used twice
    converter.register_unstructure_hook_func(is_error, lambda error: _error_to_json(error, converter))
    converter.register_structure_hook_func(is_error, lambda data, _: _error_from_json(data, converter))


register_hooks(_register_hooks)
