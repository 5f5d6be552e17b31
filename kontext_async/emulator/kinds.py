"""The kinds of fault: what can misbehave, in which operation, and how unless told otherwise. Pure data."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Mapping


class Operation(StrEnum):
    """The kinds of request that faults are drawn for."""

    CREATE = "create"
    """Create calls, in the plain, the `/sync` and the queue dialect."""
    STATUS = "status"
    """Status and result calls."""
    STREAM = "stream"
    """Task streams, and `/sync` once its task is accepted."""
    PRECHARGE = "precharge"
    DOWNLOAD = "download"
    """Everything at the files origin."""


class ErrorShape(StrEnum):
    """The body of an HTTP error."""

    NESTED = "nested"
    """`{"error": {"code", "message", "error_message"}, "request_id"}`"""
    MESSAGE = "message"
    """`{"message"}`"""
    ERROR = "error"
    """`{"error": "…"}`"""
    DETAIL = "detail"
    """`{"detail": "…"}`"""
    HTML = "html"
    """A page, as a proxy makes it."""
    EMPTY = "empty"
    """Nothing at all."""


class FaultKind(StrEnum):
    """Every misbehaviour that the emulator knows; the values are what a command line takes."""

    # The connection.
    CUT_BEFORE_BODY = "cut-before-body"
    """The connection goes before the body was read: not accepted."""
    CUT = "cut"
    """The connection goes without an answer: for a create before it is accepted."""
    CUT_AFTER_ACCEPT = "cut-after-accept"
    """The connection goes after the create was accepted and billed."""
    CUT_HALFWAY = "cut-halfway"
    """A download or a stream ends in its middle; with `ranges=False` it cannot be resumed."""
    SLOW = "slow"
    """The answer comes `seconds` later: a create is accepted after them."""
    SLOW_AFTER_ACCEPT = "slow-after-accept"
    """The create is accepted, its answer comes `seconds` later."""
    STALL = "stall"
    """No answer ever: a create is not accepted."""
    STALL_AFTER_ACCEPT = "stall-after-accept"
    """The create is accepted, its answer never comes."""
    STALL_HALFWAY = "stall-halfway"
    """A download stops in its middle, the connection stays."""
    TRICKLE = "trickle"
    """A download's bytes are spread over `seconds`."""

    # Statuses.
    RATE_LIMITED = "rate-limited"
    """429 with `retry_after`."""
    HTTP_STATUS = "http-status"
    """Any `status`; for a create before it is accepted."""
    HTTP_STATUS_AFTER_ACCEPT = "http-status-after-accept"
    """Any `status`, after the create was accepted and billed."""
    UNAVAILABLE = "unavailable"
    """503 with `retry_after`."""
    BAD_GATEWAY = "bad-gateway"
    """502 with a proxy's HTML page."""
    GATEWAY_TIMEOUT = "gateway-timeout"
    """504; for a create after it was accepted, as when a proxy loses patience."""
    UNAUTHORIZED = "unauthorized"
    """401."""
    FORBIDDEN = "forbidden"
    """403."""
    NOT_FOUND = "not-found"
    """404, this once."""
    REDIRECT = "redirect"
    """307 (or `status`) to the same path at another origin, to another path, or to `location`."""

    # Damaged answers.
    HTML_PAGE = "html-page"
    """200 with a proxy's HTML page in place of the answer."""
    TRUNCATED_JSON = "truncated-json"
    """The JSON is cut, its Content-Length agrees with what is left."""
    SHORT_BODY = "short-body"
    """Content-Length promises more than comes before the connection closes."""
    MALFORMED_JSON = "malformed-json"
    """Something that is almost JSON."""
    WRONG_TYPES = "wrong-types"
    """JSON of another type than was asked for."""
    EMPTY_BODY = "empty-body"
    """200 with nothing in it."""

    # Odd answers that are still true.
    ODD_STATUS = "odd-status"
    """Other words for the state: `queued`, `Pending`, `SUCCEEDED`, `done`, …"""
    ODD_ERROR = "odd-error"
    """A failed task's error as a string, with an integer code, with `error_message`, or null."""
    ODD_COST = "odd-cost"
    """`usage.cost` as a number, `""`, null, or missing."""
    ODD_OUTPUT = "odd-output"
    """A completed task's `output` null, empty or missing, this once."""
    ODD_PROGRESS = "odd-progress"
    """`progress` missing, null, or going backwards."""
    MILLISECONDS = "milliseconds"
    """All times in milliseconds."""
    EXTRA_KEYS = "extra-keys"
    """Keys that nobody documented, everywhere."""
    SEVERAL_URLS = "several-urls"
    """Three pictures, over two groups, and an item without a URL."""

    # What becomes of the task that a create makes.
    TASK_FAILS = "task-fails"
    """It fails with `code` and `message`, in its time."""
    TASK_HANGS = "task-hangs"
    """It never finishes."""
    TASK_VANISHES = "task-vanishes"
    """It is unknown from `seconds` after its acceptance on."""
    TASK_LATE = "task-late"
    """It is unknown for the first `seconds` after its acceptance."""
    COMPLETED_AT_ONCE = "completed-at-once"
    """The create call itself answers `completed`."""
    FAILED_AT_ONCE = "failed-at-once"
    """The create call itself answers `failed`."""

    # Downloads.
    URL_EXPIRED = "url-expired"
    """403 (or `status`), as if the URL's time were over."""
    TRUNCATED_FILE = "truncated-file"
    """Half of the picture, with the right Content-Length for that half."""
    EMPTY_FILE = "empty-file"
    """200 and zero bytes."""
    NO_RANGES = "no-ranges"
    """A Range header is ignored: 200 and the whole file."""

    # Precharge.
    COST_UNKNOWN = "cost-unknown"
    """`{"status": "failed", "data": {"cost": null, "reason": "COST_CACHE_MISS"}}`"""


@attrs.frozen(kw_only=True)
class Kind:
    """A row of the table of kinds.

    Attributes:
        operations: The operations that the kind belongs to.
        accepted: Whether a create that meets it is accepted.
        status: The HTTP status that it answers, unless the fault names one.
        retry_after: The Retry-After that goes with it, unless the fault names one; "" for none.
        seconds: Its duration, unless the fault names one.
        shape: The error body that goes with it, unless the fault names one; None is the emulator's choice.
        variants: Its variants; without a choice one is drawn.
    """

    operations: frozenset[Operation]
    accepted: bool = True
    status: int = 200
    retry_after: float | str = ""
    seconds: float = 0.0
    shape: ErrorShape | None = None
    variants: tuple[str, ...] = ()


_CREATE = frozenset({Operation.CREATE})
_STATUS = frozenset({Operation.STATUS})
_DOWNLOAD = frozenset({Operation.DOWNLOAD})
_STREAM = frozenset({Operation.STREAM})
_ASKING = _STATUS | _STREAM | {Operation.PRECHARGE}
_API = _CREATE | _ASKING
_JSON = _CREATE | _STATUS | {Operation.PRECHARGE}
_EVERY = frozenset(Operation)
_TASK = _CREATE | _STATUS

KINDS: Mapping[FaultKind, Kind] = {
    FaultKind.CUT_BEFORE_BODY: Kind(operations=_CREATE, accepted=False, variants=("close", "reset")),
    FaultKind.CUT: Kind(operations=_EVERY, accepted=False, variants=("close", "reset")),
    FaultKind.CUT_AFTER_ACCEPT: Kind(operations=_CREATE, variants=("close", "reset")),
    FaultKind.CUT_HALFWAY: Kind(operations=_DOWNLOAD | _STREAM),
    FaultKind.SLOW: Kind(operations=_EVERY, seconds=1.0),
    FaultKind.SLOW_AFTER_ACCEPT: Kind(operations=_CREATE, seconds=1.0),
    FaultKind.STALL: Kind(operations=_EVERY, accepted=False),
    FaultKind.STALL_AFTER_ACCEPT: Kind(operations=_CREATE),
    FaultKind.STALL_HALFWAY: Kind(operations=_DOWNLOAD),
    FaultKind.TRICKLE: Kind(operations=_DOWNLOAD, seconds=1.0),
    FaultKind.RATE_LIMITED: Kind(operations=_EVERY, accepted=False, status=429, retry_after=1.0),
    FaultKind.HTTP_STATUS: Kind(operations=_EVERY, accepted=False, status=500),
    FaultKind.HTTP_STATUS_AFTER_ACCEPT: Kind(operations=_CREATE, status=500),
    FaultKind.UNAVAILABLE: Kind(operations=_EVERY, accepted=False, status=503, retry_after=1.0),
    FaultKind.BAD_GATEWAY: Kind(operations=_EVERY, accepted=False, status=502, shape=ErrorShape.HTML),
    FaultKind.GATEWAY_TIMEOUT: Kind(operations=_EVERY, status=504, shape=ErrorShape.HTML),
    FaultKind.UNAUTHORIZED: Kind(operations=_API, accepted=False, status=401),
    FaultKind.FORBIDDEN: Kind(operations=_EVERY, accepted=False, status=403),
    FaultKind.NOT_FOUND: Kind(operations=_EVERY, accepted=False, status=404),
    FaultKind.REDIRECT: Kind(operations=_EVERY, accepted=False, status=307, variants=("origin", "path")),
    FaultKind.HTML_PAGE: Kind(operations=_EVERY, accepted=False, shape=ErrorShape.HTML),
    FaultKind.TRUNCATED_JSON: Kind(operations=_JSON),
    FaultKind.SHORT_BODY: Kind(operations=_JSON | _DOWNLOAD),
    FaultKind.MALFORMED_JSON: Kind(operations=_JSON, variants=("trailing", "quotes", "encoding", "nan")),
    FaultKind.WRONG_TYPES: Kind(
        operations=_JSON, variants=("list", "string", "number", "null", "no-id", "status-number", "output-string")
    ),
    FaultKind.EMPTY_BODY: Kind(operations=_JSON),
    FaultKind.ODD_STATUS: Kind(
        operations=_TASK, variants=("queued", "Pending", "IN_PROGRESS", "running", "SUCCEEDED", "done", "FAILED")
    ),
    FaultKind.ODD_ERROR: Kind(
        operations=_TASK, variants=("string", "integer-code", "error_message", "message-only", "null", "missing")
    ),
    FaultKind.ODD_COST: Kind(operations=_TASK, variants=("number", "empty", "null", "missing", "no-usage")),
    FaultKind.ODD_OUTPUT: Kind(operations=_TASK, variants=("null", "empty", "missing", "no-content", "no-url")),
    FaultKind.ODD_PROGRESS: Kind(operations=_TASK, variants=("missing", "null", "backwards", "string")),
    FaultKind.MILLISECONDS: Kind(operations=_TASK),
    FaultKind.EXTRA_KEYS: Kind(operations=_TASK),
    FaultKind.SEVERAL_URLS: Kind(operations=_TASK),
    FaultKind.TASK_FAILS: Kind(operations=_CREATE),
    FaultKind.TASK_HANGS: Kind(operations=_CREATE),
    FaultKind.TASK_VANISHES: Kind(operations=_CREATE),
    FaultKind.TASK_LATE: Kind(operations=_CREATE, seconds=1.0),
    FaultKind.COMPLETED_AT_ONCE: Kind(operations=_CREATE),
    FaultKind.FAILED_AT_ONCE: Kind(operations=_CREATE),
    FaultKind.URL_EXPIRED: Kind(operations=_DOWNLOAD, status=403),
    FaultKind.TRUNCATED_FILE: Kind(operations=_DOWNLOAD),
    FaultKind.EMPTY_FILE: Kind(operations=_DOWNLOAD),
    FaultKind.NO_RANGES: Kind(operations=_DOWNLOAD),
    FaultKind.COST_UNKNOWN: Kind(operations=frozenset({Operation.PRECHARGE})),
}

FATES = frozenset(kind for kind in FaultKind if kind.value.startswith("task-") or kind.value.endswith("-at-once"))
"""The kinds that decide what becomes of a task."""

FIXED = FATES | {kind for kind in FaultKind if kind.value.endswith("-accept")}.union(
    {FaultKind.CUT_BEFORE_BODY, FaultKind.SLOW, FaultKind.MILLISECONDS, FaultKind.EXTRA_KEYS, FaultKind.SEVERAL_URLS},
    (kind for kind in FaultKind if kind.value.startswith("odd-")),
)
"""The kinds for which it is settled whether a create that meets them is accepted."""
