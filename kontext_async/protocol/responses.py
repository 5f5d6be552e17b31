"""What the gateway says of a task: PROTOCOL.md, "The task". No I/O in here.

Strict in what decides about money and pictures (the id, the status word, the output), lenient in the rest: a wrong
type there loses the detail, never the task. Unknown keys are kept.
"""

from __future__ import annotations

import math
import sys
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

import cattrs
from attrs import frozen
from cattrs.gen import make_dict_structure_fn, override

from kontext_async.errors import InvalidResponse
from kontext_async.models import GeneratedImage, TaskErrorDetail, TaskState, TaskStatus, Usage
from kontext_async.protocol.decoding import loads_lenient
from kontext_async.protocol.endpoints import is_task_id
from kontext_async.redaction import body_excerpt, truncate

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "InProgress",
    "accepted_despite_error",
    "read_created",
    "read_money",
    "read_number",
    "read_poll",
    "read_status",
]

IN_PROGRESS = "in_progress"
STATES = {
    IN_PROGRESS: TaskState.IN_PROGRESS,
    "completed": TaskState.COMPLETED,
    "done": TaskState.COMPLETED,
    "succeeded": TaskState.COMPLETED,
    "failed": TaskState.FAILED,
}
LONGEST_WORD = 80
FIRST_MILLISECONDS = 1e11
"""Times from here on are milliseconds: as seconds they would be after the year 5000."""


DIGITS_OF_MONEY = 12
"""Before the point. More are nonsense, and could not be added up."""


class InProgress(NamedTuple):
    """A task that is not finished.

    Attributes:
        progress: What it says of it, from 0 to 1.
    """

    progress: float | None


@frozen
class _Content:
    url: str | None = None
    type: Any = None
    job_id: Any = None


@frozen
class _Group:
    content: list[_Content] | None = None


@frozen
class _Task:
    id: str
    status: str
    output: list[_Group] | None = None


def _text(value: object, _: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, not {type(value).__name__}")
    return value


@cache
def _converter(*, detailed: bool) -> cattrs.Converter:
    """The package's converter; the detailed one is slower, and names the path of what is wrong."""
    converter = cattrs.Converter(detailed_validation=detailed)
    converter.register_structure_hook(str, _text)
    content = make_dict_structure_fn(_Content, converter, job_id=override(rename="jobId"))
    converter.register_structure_hook(_Content, _object_only(content))
    for kind in (_Group, _Task):
        converter.register_structure_hook(kind, _object_only(make_dict_structure_fn(kind, converter)))
    return converter


def _object_only(structure: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    def guarded(value: object, kind: type) -> object:
        if not isinstance(value, dict):
            raise TypeError(f"expected an object, not {type(value).__name__}")
        return structure(value, kind)

    return guarded


def read_status(body: bytes, task_id: str, status: int = 200) -> TaskStatus:
    """Read the response to a status request.

    Args:
        body: The response body.
        task_id: The ID of the polled task; a response about another task is an error.
        status: The HTTP status, for the error.

    Raises:
        InvalidResponse: The body is not JSON, an important field has the wrong type, or it is about another task.
    """
    return _read_status(_object(body, status), body, task_id, status)


def read_poll(body: bytes, task_id: str, status: int = 200) -> InProgress | TaskStatus:
    """Read the response to a status request, but no more of it than the schedule needs if it says "not yet".

    Nearly all responses do, and few of them are looked at any closer: `read_status` does that, for any response.

    Args:
        body: The response body.
        task_id: The ID of the polled task; a response about another task is an error.
        status: The HTTP status, for the error.

    Raises:
        InvalidResponse: As `read_status`.
    """
    payload = _object(body, status)
    if payload.get("status") == IN_PROGRESS and payload.get("output") is None and payload.get("id", task_id) == task_id:
        return InProgress(_fraction(payload.get("progress")))
    return _read_status(payload, body, task_id, status)


def _read_status(payload: dict[str, Any], body: bytes, task_id: str, status: int) -> TaskStatus:
    payload.setdefault("id", task_id)
    read = _read(payload, body, status)
    if read.task_id != task_id:
        raise _malformed(f"the response is about task {truncate(read.task_id, 80)!r}", body, status)
    return read


def read_created(body: bytes, *, status: int = 200) -> TaskStatus:
    """The answer to a create request.

    Raises:
        InvalidResponse: It is not JSON, holds no id, or a field that matters has the wrong type.
    """
    return _read(_object(body, status), body, status)


def accepted_despite_error(body: bytes) -> TaskStatus | None:
    """The task in an answer whose HTTP status says failure: with an id and a status in it, it was accepted."""
    try:
        read = read_created(body)
    except InvalidResponse:
        return None
    return None if read.state is TaskState.FAILED else read


def _object(body: bytes, status: int) -> dict[str, Any]:
    try:
        payload = loads_lenient(body)
    except (ValueError, RecursionError) as error:
        raise _malformed(f"the answer is not JSON: {truncate(str(error), 100)}", body, status) from None
    if not isinstance(payload, dict):
        raise _malformed(f"the answer is not an object, but {type(payload).__name__}", body, status)
    return payload


def _read(payload: dict[str, Any], body: bytes, status: int) -> TaskStatus:
    task = _structured(payload, body, status)
    if not is_task_id(task.id):
        raise _malformed(f"the answer cannot be read: {truncate(repr(task.id), 80)} is no id", body, status)
    word = task.status
    state = STATES.get(word) or STATES.get(word.strip().lower(), TaskState.UNKNOWN)
    failed = state is TaskState.FAILED or payload.get("error")
    return TaskStatus(
        task_id=task.id,
        state=state,
        raw_status=_once(word if len(word) < LONGEST_WORD else truncate(word, LONGEST_WORD)),
        model=_once(model) if isinstance(model := payload.get("model"), str) else None,
        progress=_fraction(payload.get("progress")),
        error=_problem(payload) if failed else None,
        images=tuple(_images(task)) if task.output else (),
        usage=_usage(payload.get("usage")),
        created_at=_time(payload.get("created_at")),
        metadata=value if isinstance(value := payload.get("metadata"), dict) else {},
        extra={} if payload.keys() <= DESCRIBED else {k: v for k, v in payload.items() if k not in DESCRIBED},
    )


def _structured(payload: dict[str, Any], body: bytes, status: int) -> _Task:
    """What decides about money and pictures, with its types checked."""
    try:
        return _converter(detailed=False).structure(payload, _Task)
    except Exception:  # noqa: BLE001 # whatever cattrs meets in foreign data is the answer's fault
        raise _malformed(f"the answer cannot be read: {_wrong(payload)}", body, status) from None


DESCRIBED = {"id", "status", "model", "progress", "error", "output", "usage", "created_at", "metadata"}


def _wrong(payload: dict[str, Any]) -> str:
    """What is wrong, with its path: read again with the converter that keeps account."""
    try:
        _converter(detailed=True).structure(payload, _Task)
    except Exception as error:  # noqa: BLE001 # as above
        return truncate("; ".join(cattrs.transform_error(error, path="answer")), 300)
    return "it is not a task"


def _malformed(message: str, body: bytes, status: int) -> InvalidResponse:
    return InvalidResponse(message, status=status, body=body_excerpt(body))


def _images(task: _Task) -> list[GeneratedImage]:
    return [
        GeneratedImage(
            url=item.url,
            type=_text_or_none(item.type) or "image",
            job_id=None if item.job_id is None else _words(item.job_id),
            task_id=task.id,
        )
        for group in task.output or ()
        for item in group.content or ()
        if item.url
    ]


def _problem(payload: dict[str, Any]) -> TaskErrorDetail:
    error = payload.get("error")
    if isinstance(error, dict):
        message = error.get("message") or error.get("error_message") or ""
        code = error.get("code")
    else:
        message, code = error, None
    message = message or payload.get("error_message") or payload.get("message") or "no reason was given"
    return TaskErrorDetail(code=None if code is None else truncate(_words(code), 80), message=truncate(_words(message)))


def _words(value: object) -> str:
    try:
        return str(value)
    except RecursionError:  # what can be loads_lenient cannot always be shown
        return "nested too deeply"


def _usage(value: object) -> Usage | None:
    if not isinstance(value, dict):
        return None
    extra = {key: item for key, item in value.items() if key not in {"cost", "discount"}}
    return Usage(cost=read_money(value.get("cost")), discount=read_number(value.get("discount")), extra=extra)


def read_money(value: object) -> Decimal | None:
    """An amount, as text or as a number; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        amount = Decimal(str(value).strip())
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and amount.adjusted() < DIGITS_OF_MONEY else None


def read_number(value: object) -> float | None:
    """A finite number; None for what is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _fraction(value: object) -> float | None:
    if type(value) is float and 0 <= value <= 1:
        return value
    number = read_number(value)
    return None if number is None else min(1.0, max(0.0, number))


def _time(value: object) -> datetime | None:
    number = read_number(value)
    return None if number is None else _moment(number)


@lru_cache(maxsize=1024)
def _moment(number: float) -> datetime | None:
    """A time is told again with every answer about a task, and tasks of one moment have it in common."""
    try:
        return datetime.fromtimestamp(number / 1000 if abs(number) >= FIRST_MILLISECONDS else number, UTC)
    except (OverflowError, OSError, ValueError):
        return None


def _once(word: str) -> str:
    """The same text, held once however many answers say it: few are ever said, of tasks that may be many."""
    return sys.intern(word)


def _text_or_none(value: object) -> str | None:
    return value if isinstance(value, str) else None
