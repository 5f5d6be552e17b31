"""The kinds of fault: every misbehavior, the operations that it applies to, and its defaults. Pure data."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping


class Operation(StrEnum):
    """The kinds of request that faults are drawn for."""

    CREATE = "create"
    """Create requests, in the plain dialect, to `/sync`, and in the queue dialect."""
    STATUS = "status"
    """Status and result requests."""
    STREAM = "stream"
    """Task streams, and `/sync` once its task is accepted."""
    PRECHARGE = "precharge"
    DOWNLOAD = "download"
    """Every request to the files origin."""


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
    """A page such as a proxy generates."""
    EMPTY = "empty"
    """No body."""


class FaultKind(StrEnum):
    """Every misbehavior that the emulator can perform; the command line uses the values."""

    # The connection.
    CUT_BEFORE_BODY = "cut-before-body"
    """The connection closes before the body is read: not accepted."""
    CUT = "cut"
    """The connection closes without a response; a create request is not accepted."""
    CUT_AFTER_ACCEPT = "cut-after-accept"
    """The connection closes after the create request was accepted and billed."""
    CUT_HALFWAY = "cut-halfway"
    """A download or a stream ends in its middle; with `ranges=False` it cannot be resumed."""
    SLOW = "slow"
    """The response comes `seconds` later; a create request is accepted after that time."""
    SLOW_AFTER_ACCEPT = "slow-after-accept"
    """The create request is accepted, and its response comes `seconds` later."""
    STALL = "stall"
    """The response never comes; a create request is not accepted."""
    STALL_AFTER_ACCEPT = "stall-after-accept"
    """The create request is accepted, and its response never comes."""
    STALL_HALFWAY = "stall-halfway"
    """A download stops in its middle, and the connection stays open."""
    TRICKLE = "trickle"
    """A download's bytes are spread over `seconds`."""

    # Statuses.
    RATE_LIMITED = "rate-limited"
    """429 with `retry_after`."""
    HTTP_STATUS = "http-status"
    """Any `status`; a create request is not accepted."""
    HTTP_STATUS_AFTER_ACCEPT = "http-status-after-accept"
    """Any `status`, after the create request was accepted and billed."""
    UNAVAILABLE = "unavailable"
    """503 with `retry_after`."""
    BAD_GATEWAY = "bad-gateway"
    """502 with a proxy's HTML page."""
    GATEWAY_TIMEOUT = "gateway-timeout"
    """504; a create request is accepted all the same, as when a proxy times out."""
    UNAUTHORIZED = "unauthorized"
    """401."""
    FORBIDDEN = "forbidden"
    """403."""
    NOT_FOUND = "not-found"
    """404, for this request only."""
    REDIRECT = "redirect"
    """307 (or `status`) to the same path at another origin, to another path, or to `location`."""

    # Damaged responses.
    HTML_PAGE = "html-page"
    """200 with a proxy's HTML page in place of the response."""
    TRUNCATED_JSON = "truncated-json"
    """The JSON is cut, and Content-Length agrees with the rest."""
    SHORT_BODY = "short-body"
    """Content-Length announces more bytes than are sent before the connection closes."""
    MALFORMED_JSON = "malformed-json"
    """A body that is almost JSON."""
    WRONG_TYPES = "wrong-types"
    """JSON of another type than the client expects."""
    EMPTY_BODY = "empty-body"
    """200 with an empty body."""

    # Odd responses that are still true.
    ODD_STATUS = "odd-status"
    """Other status texts: `queued`, `Pending`, `SUCCEEDED`, `done`, …"""
    ODD_ERROR = "odd-error"
    """A failed task's error as a string, with an integer code, with `error_message`, or null."""
    ODD_COST = "odd-cost"
    """`usage.cost` as a number, `""`, null, or missing."""
    ODD_OUTPUT = "odd-output"
    """A completed task's `output` null, empty or missing, for this request only."""
    ODD_PROGRESS = "odd-progress"
    """`progress` missing, null, or going backwards."""
    MILLISECONDS = "milliseconds"
    """All times in milliseconds."""
    EXTRA_KEYS = "extra-keys"
    """Undocumented keys, everywhere."""
    SEVERAL_URLS = "several-urls"
    """Three images in two groups, and an item without a URL."""

    # The outcome of the task that a create request starts.
    TASK_FAILS = "task-fails"
    """The task fails with `code` and `message`, after its service time."""
    TASK_HANGS = "task-hangs"
    """The task never ends."""
    TASK_VANISHES = "task-vanishes"
    """The task is unknown from `seconds` after its acceptance on."""
    TASK_LATE = "task-late"
    """The task is unknown for the first `seconds` after its acceptance."""
    COMPLETED_AT_ONCE = "completed-at-once"
    """The response to the create request already says `completed`."""
    FAILED_AT_ONCE = "failed-at-once"
    """The response to the create request already says `failed`."""

    # Downloads.
    URL_EXPIRED = "url-expired"
    """403 (or `status`), as if the URL had expired."""
    TRUNCATED_FILE = "truncated-file"
    """Half of the image, with the Content-Length of that half."""
    EMPTY_FILE = "empty-file"
    """200 and zero bytes."""
    NO_RANGES = "no-ranges"
    """The Range header is ignored: 200 and the whole file."""

    # Precharge.
    COST_UNKNOWN = "cost-unknown"
    """`{"status": "failed", "data": {"cost": null, "reason": "COST_CACHE_MISS"}}`"""


@frozen(kw_only=True)
class FaultSpec:
    """The operations and the defaults of one kind of fault.

    Attributes:
        operations: The operations that the kind applies to.
        accepted: Whether a create request with this fault is accepted.
        status: The HTTP status of the response, unless the fault sets one.
        retry_after: The Retry-After of the response, unless the fault sets one; "" for none.
        seconds: The duration, unless the fault sets one.
        shape: The shape of the error body, unless the fault sets one; with None the emulator chooses.
        variants: The variants; one is drawn, unless the fault sets one.
    """

    operations: frozenset[Operation]
    accepted: bool = True
    status: int = 200
    retry_after: float | str = ""
    seconds: float = 0.0
    shape: ErrorShape | None = None
    variants: tuple[str, ...] = ()


CREATE_ONLY = frozenset({Operation.CREATE})
STATUS_ONLY = frozenset({Operation.STATUS})
DOWNLOAD_ONLY = frozenset({Operation.DOWNLOAD})
STREAM_ONLY = frozenset({Operation.STREAM})
READ_OPERATIONS = STATUS_ONLY | STREAM_ONLY | {Operation.PRECHARGE}
API_OPERATIONS = CREATE_ONLY | READ_OPERATIONS
JSON_OPERATIONS = CREATE_ONLY | STATUS_ONLY | {Operation.PRECHARGE}
ALL_OPERATIONS = frozenset(Operation)
TASK_OPERATIONS = CREATE_ONLY | STATUS_ONLY

FAULT_SPECS: Mapping[FaultKind, FaultSpec] = {
    FaultKind.CUT_BEFORE_BODY: FaultSpec(operations=CREATE_ONLY, accepted=False, variants=("close", "reset")),
    FaultKind.CUT: FaultSpec(operations=ALL_OPERATIONS, accepted=False, variants=("close", "reset")),
    FaultKind.CUT_AFTER_ACCEPT: FaultSpec(operations=CREATE_ONLY, variants=("close", "reset")),
    FaultKind.CUT_HALFWAY: FaultSpec(operations=DOWNLOAD_ONLY | STREAM_ONLY),
    FaultKind.SLOW: FaultSpec(operations=ALL_OPERATIONS, seconds=1.0),
    FaultKind.SLOW_AFTER_ACCEPT: FaultSpec(operations=CREATE_ONLY, seconds=1.0),
    FaultKind.STALL: FaultSpec(operations=ALL_OPERATIONS, accepted=False),
    FaultKind.STALL_AFTER_ACCEPT: FaultSpec(operations=CREATE_ONLY),
    FaultKind.STALL_HALFWAY: FaultSpec(operations=DOWNLOAD_ONLY),
    FaultKind.TRICKLE: FaultSpec(operations=DOWNLOAD_ONLY, seconds=1.0),
    FaultKind.RATE_LIMITED: FaultSpec(operations=ALL_OPERATIONS, accepted=False, status=429, retry_after=1.0),
    FaultKind.HTTP_STATUS: FaultSpec(operations=ALL_OPERATIONS, accepted=False, status=500),
    FaultKind.HTTP_STATUS_AFTER_ACCEPT: FaultSpec(operations=CREATE_ONLY, status=500),
    FaultKind.UNAVAILABLE: FaultSpec(operations=ALL_OPERATIONS, accepted=False, status=503, retry_after=1.0),
    FaultKind.BAD_GATEWAY: FaultSpec(operations=ALL_OPERATIONS, accepted=False, status=502, shape=ErrorShape.HTML),
    FaultKind.GATEWAY_TIMEOUT: FaultSpec(operations=ALL_OPERATIONS, status=504, shape=ErrorShape.HTML),
    FaultKind.UNAUTHORIZED: FaultSpec(operations=API_OPERATIONS, accepted=False, status=401),
    FaultKind.FORBIDDEN: FaultSpec(operations=ALL_OPERATIONS, accepted=False, status=403),
    FaultKind.NOT_FOUND: FaultSpec(operations=ALL_OPERATIONS, accepted=False, status=404),
    FaultKind.REDIRECT: FaultSpec(operations=ALL_OPERATIONS, accepted=False, status=307, variants=("origin", "path")),
    FaultKind.HTML_PAGE: FaultSpec(operations=ALL_OPERATIONS, accepted=False, shape=ErrorShape.HTML),
    FaultKind.TRUNCATED_JSON: FaultSpec(operations=JSON_OPERATIONS),
    FaultKind.SHORT_BODY: FaultSpec(operations=JSON_OPERATIONS | DOWNLOAD_ONLY),
    FaultKind.MALFORMED_JSON: FaultSpec(operations=JSON_OPERATIONS, variants=("trailing", "quotes", "encoding", "nan")),
    FaultKind.WRONG_TYPES: FaultSpec(
        operations=JSON_OPERATIONS,
        variants=("list", "string", "number", "null", "no-id", "status-number", "output-string"),
    ),
    FaultKind.EMPTY_BODY: FaultSpec(operations=JSON_OPERATIONS),
    FaultKind.ODD_STATUS: FaultSpec(
        operations=TASK_OPERATIONS,
        variants=("queued", "Pending", "IN_PROGRESS", "running", "SUCCEEDED", "done", "FAILED"),
    ),
    FaultKind.ODD_ERROR: FaultSpec(
        operations=TASK_OPERATIONS,
        variants=("string", "integer-code", "error_message", "message-only", "null", "missing"),
    ),
    FaultKind.ODD_COST: FaultSpec(
        operations=TASK_OPERATIONS, variants=("number", "empty", "null", "missing", "no-usage")
    ),
    FaultKind.ODD_OUTPUT: FaultSpec(
        operations=TASK_OPERATIONS, variants=("null", "empty", "missing", "no-content", "no-url")
    ),
    FaultKind.ODD_PROGRESS: FaultSpec(operations=TASK_OPERATIONS, variants=("missing", "null", "backwards", "string")),
    FaultKind.MILLISECONDS: FaultSpec(operations=TASK_OPERATIONS),
    FaultKind.EXTRA_KEYS: FaultSpec(operations=TASK_OPERATIONS),
    FaultKind.SEVERAL_URLS: FaultSpec(operations=TASK_OPERATIONS),
    FaultKind.TASK_FAILS: FaultSpec(operations=CREATE_ONLY),
    FaultKind.TASK_HANGS: FaultSpec(operations=CREATE_ONLY),
    FaultKind.TASK_VANISHES: FaultSpec(operations=CREATE_ONLY),
    FaultKind.TASK_LATE: FaultSpec(operations=CREATE_ONLY, seconds=1.0),
    FaultKind.COMPLETED_AT_ONCE: FaultSpec(operations=CREATE_ONLY),
    FaultKind.FAILED_AT_ONCE: FaultSpec(operations=CREATE_ONLY),
    FaultKind.URL_EXPIRED: FaultSpec(operations=DOWNLOAD_ONLY, status=403),
    FaultKind.TRUNCATED_FILE: FaultSpec(operations=DOWNLOAD_ONLY),
    FaultKind.EMPTY_FILE: FaultSpec(operations=DOWNLOAD_ONLY),
    FaultKind.NO_RANGES: FaultSpec(operations=DOWNLOAD_ONLY),
    FaultKind.COST_UNKNOWN: FaultSpec(operations=frozenset({Operation.PRECHARGE})),
}
"""The table of all kinds."""

OUTCOME_KINDS = frozenset(
    kind for kind in FaultKind if kind.value.startswith("task-") or kind.value.endswith("-at-once")
)
"""The kinds that decide the outcome of a task."""

FIXED_ACCEPTANCE_KINDS = OUTCOME_KINDS | {kind for kind in FaultKind if kind.value.endswith("-accept")}.union(
    {FaultKind.CUT_BEFORE_BODY, FaultKind.SLOW, FaultKind.MILLISECONDS, FaultKind.EXTRA_KEYS, FaultKind.SEVERAL_URLS},
    (kind for kind in FaultKind if kind.value.startswith("odd-")),
)
"""The kinds for which a fault cannot choose whether the create request is accepted."""
