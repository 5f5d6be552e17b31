"""The table of all kinds of fault: the operations that each applies to, and its defaults. Pure data."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from kontext_async.emulator.fault_kinds import ErrorShape, FaultKind, Operation

if TYPE_CHECKING:
    from collections.abc import Mapping


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
WEBHOOK_ONLY = frozenset({Operation.WEBHOOK})
CANCEL_ONLY = frozenset({Operation.CANCEL})
READ_OPERATIONS = STATUS_ONLY | STREAM_ONLY | CANCEL_ONLY | {Operation.PRECHARGE, Operation.BALANCE}
API_OPERATIONS = CREATE_ONLY | READ_OPERATIONS
JSON_OPERATIONS = CREATE_ONLY | STATUS_ONLY | {Operation.PRECHARGE, Operation.BALANCE}
ALL_OPERATIONS = frozenset(Operation) - WEBHOOK_ONLY
TASK_OPERATIONS = CREATE_ONLY | STATUS_ONLY
FRAMED_OPERATIONS = JSON_OPERATIONS | DOWNLOAD_ONLY

CONTROL_VARIANTS = ("escape", "bell", "line-break", "nul", "direction")

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
    FaultKind.ECHOED_HEAD: FaultSpec(operations=ALL_OPERATIONS, accepted=False),
    FaultKind.LARGE_HEADER: FaultSpec(operations=FRAMED_OPERATIONS),
    FaultKind.MANY_HEADERS: FaultSpec(operations=FRAMED_OPERATIONS),
    FaultKind.MISSING_LAST_CHUNK: FaultSpec(operations=FRAMED_OPERATIONS),
    FaultKind.LENGTH_TOO_LONG: FaultSpec(operations=FRAMED_OPERATIONS),
    FaultKind.RATE_LIMITED: FaultSpec(operations=ALL_OPERATIONS, accepted=False, status=429, retry_after=1.0),
    FaultKind.HTTP_STATUS: FaultSpec(operations=ALL_OPERATIONS, accepted=False, status=500),
    FaultKind.HTTP_STATUS_AFTER_ACCEPT: FaultSpec(operations=CREATE_ONLY, status=500),
    FaultKind.UNAVAILABLE: FaultSpec(operations=ALL_OPERATIONS, accepted=False, status=503, retry_after=1.0),
    FaultKind.BAD_GATEWAY: FaultSpec(operations=ALL_OPERATIONS, accepted=False, status=502, shape=ErrorShape.HTML),
    FaultKind.GATEWAY_TIMEOUT: FaultSpec(operations=ALL_OPERATIONS, status=504, shape=ErrorShape.HTML),
    FaultKind.UNAUTHORIZED: FaultSpec(operations=API_OPERATIONS, accepted=False, status=401),
    FaultKind.FORBIDDEN: FaultSpec(operations=ALL_OPERATIONS, accepted=False, status=403),
    FaultKind.BALANCE_TOO_LOW: FaultSpec(
        operations=API_OPERATIONS,
        accepted=False,
        status=403,
        shape=ErrorShape.STATUS,
        variants=tuple(str(code) for code in range(40201, 40209)),
    ),
    FaultKind.ECHOED_KEY: FaultSpec(
        operations=API_OPERATIONS,
        accepted=False,
        status=400,
        variants=(
            "header",
            "straddling",
            "straddling-body",
            "json-escaped",
            "percent-encoded",
            "url",
            "page",
            "request-id",
        ),
    ),
    FaultKind.CONTROL_CHARACTERS: FaultSpec(
        operations=ALL_OPERATIONS, accepted=False, status=400, variants=CONTROL_VARIANTS
    ),
    FaultKind.NOT_FOUND: FaultSpec(operations=ALL_OPERATIONS, accepted=False, status=404),
    FaultKind.ERRORS_IN_SUCCESS: FaultSpec(operations=CREATE_ONLY, accepted=False),
    FaultKind.STATUS_IN_ERROR: FaultSpec(operations=STATUS_ONLY, status=503),
    FaultKind.NOT_FOUND_IN_SUCCESS: FaultSpec(operations=STATUS_ONLY),
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
    FaultKind.ODD_ADDRESS: FaultSpec(
        operations=CREATE_ONLY,
        variants=(
            "missing",
            "null",
            "relative",
            "elsewhere",
            "user",
            "http",
            "port",
            "suffix",
            "no-host",
            "script",
            "long",
        ),
    ),
    FaultKind.CUT_ADDRESS: FaultSpec(operations=CREATE_ONLY),
    FaultKind.RESULT_IN_STATUS: FaultSpec(operations=STATUS_ONLY),
    FaultKind.FAILED_RESULT: FaultSpec(operations=STATUS_ONLY, variants=("status", "error")),
    FaultKind.SEVERAL_URLS: FaultSpec(operations=TASK_OPERATIONS),
    FaultKind.OPAQUE_URL: FaultSpec(operations=TASK_OPERATIONS),
    FaultKind.ECHOED_KEY_IN_TASK: FaultSpec(operations=JSON_OPERATIONS, variants=("texts", "url-path", "url-query")),
    FaultKind.CONTROL_CHARACTERS_IN_TASK: FaultSpec(operations=JSON_OPERATIONS, variants=CONTROL_VARIANTS),
    FaultKind.NONSENSE_COST: FaultSpec(
        operations=JSON_OPERATIONS,
        variants=("negative", "tiny-exponent", "huge-exponent", "digits", "not-a-number", "infinite", "credit"),
    ),
    FaultKind.MANY_URLS: FaultSpec(operations=TASK_OPERATIONS),
    FaultKind.ODD_URL: FaultSpec(
        operations=TASK_OPERATIONS,
        variants=(
            "loopback",
            "loopback-ipv6",
            "loopback-mapped",
            "private",
            "metadata",
            "empty-label",
            "long-label",
            "without-scheme",
            "relative",
            "data",
            "file",
            "credentials",
            "blank",
            "line-break",
            "no-host",
            "bad-port",
        ),
    ),
    FaultKind.TASK_FAILS: FaultSpec(operations=CREATE_ONLY),
    FaultKind.TASK_MODERATED: FaultSpec(operations=CREATE_ONLY, variants=("request", "content")),
    FaultKind.TASK_HANGS: FaultSpec(operations=CREATE_ONLY),
    FaultKind.TASK_VANISHES: FaultSpec(operations=CREATE_ONLY),
    FaultKind.TASK_LATE: FaultSpec(operations=CREATE_ONLY, seconds=1.0),
    FaultKind.COMPLETED_AT_ONCE: FaultSpec(operations=CREATE_ONLY),
    FaultKind.FAILED_AT_ONCE: FaultSpec(operations=CREATE_ONLY),
    FaultKind.TASK_ENDS_ODDLY: FaultSpec(
        operations=CREATE_ONLY, variants=("cancelled", "canceled", "expired", "rejected", "error")
    ),
    FaultKind.REPEATED_ID: FaultSpec(operations=CREATE_ONLY, variants=("cached", "latest")),
    FaultKind.URL_EXPIRED: FaultSpec(operations=DOWNLOAD_ONLY, status=403),
    FaultKind.TRUNCATED_FILE: FaultSpec(operations=DOWNLOAD_ONLY),
    FaultKind.EMPTY_FILE: FaultSpec(operations=DOWNLOAD_ONLY),
    FaultKind.NO_RANGES: FaultSpec(operations=DOWNLOAD_ONLY),
    FaultKind.RANGE_REFUSED: FaultSpec(operations=DOWNLOAD_ONLY, status=400),
    FaultKind.RANGE_OF_ANOTHER_FILE: FaultSpec(operations=DOWNLOAD_ONLY, variants=("etag", "total")),
    FaultKind.TRAILING_BYTES: FaultSpec(operations=DOWNLOAD_ONLY),
    FaultKind.ENCODED_FILE: FaultSpec(operations=DOWNLOAD_ONLY, variants=("whole", "halfway")),
    FaultKind.NEGOTIATED_FORMAT: FaultSpec(
        operations=DOWNLOAD_ONLY, variants=("avif", "heic", "forced-avif", "forced-heic")
    ),
    FaultKind.CANCEL_LATE: FaultSpec(operations=CANCEL_ONLY, seconds=1.0),
    FaultKind.CANCEL_IGNORED: FaultSpec(operations=CANCEL_ONLY),
    FaultKind.CANCEL_REFUSED: FaultSpec(operations=CANCEL_ONLY, status=409),
    FaultKind.CUT_AFTER_CANCEL: FaultSpec(operations=CANCEL_ONLY, variants=("close", "reset")),
    FaultKind.WEBHOOK_LOST: FaultSpec(operations=WEBHOOK_ONLY),
    FaultKind.WEBHOOK_TWICE: FaultSpec(operations=WEBHOOK_ONLY),
    FaultKind.WEBHOOK_LATE: FaultSpec(operations=WEBHOOK_ONLY, seconds=1.0),
    FaultKind.WEBHOOK_FORGED: FaultSpec(operations=WEBHOOK_ONLY, variants=("secret", "signature", "neither")),
    FaultKind.COST_UNKNOWN: FaultSpec(operations=frozenset({Operation.PRECHARGE})),
}
"""The table of all kinds."""

OUTCOME_KINDS = frozenset(
    kind for kind in FaultKind if kind.value.startswith("task-") or kind.value.endswith("-at-once")
)
"""The kinds that decide the outcome of a task."""

FIXED_ACCEPTANCE_KINDS = OUTCOME_KINDS | {kind for kind in FaultKind if kind.value.endswith("-accept")}.union(
    {
        FaultKind.CUT_BEFORE_BODY,
        FaultKind.CUT_ADDRESS,
        FaultKind.SLOW,
        FaultKind.MILLISECONDS,
        FaultKind.EXTRA_KEYS,
        FaultKind.SEVERAL_URLS,
        FaultKind.OPAQUE_URL,
        FaultKind.MANY_URLS,
        FaultKind.NONSENSE_COST,
        FaultKind.REPEATED_ID,
    },
    (kind for kind in FaultKind if kind.value.startswith("odd-") or kind.value.endswith("-in-task")),
)
"""The kinds for which a fault cannot choose whether the create request is accepted."""
