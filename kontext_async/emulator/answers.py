"""The answers of the gateway as JSON values, in the plain and in the queue dialect. Pure.

Implements "The task", "Errors over HTTP", "Streams", "Precharge" and "The queue dialect" of the protocol
page, each as it should be; `reshape` makes the odd ones.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime
from email.utils import format_datetime
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from kontext_async.emulator.kinds import ErrorShape
from kontext_async.emulator.world import State

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal

    from kontext_async.emulator.world import Task

    Link = Callable[[Task, int], str]

Json = dict[str, Any]

QUEUED_SHARE = 0.2
"""The share of its time that a task spends in the queue."""

UPLOAD_SHARE = 0.95
"""The share of its time after which a task's picture is uploaded."""

STREAM_FRAMES = 3
"""How many `output` frames a stream has before its end."""


def decimal_text(amount: Decimal) -> str:
    """An amount as a plain decimal string, without trailing zeros."""
    return f"{amount.normalize():f}"


def task_answer(task: Task, *, now: float, discount: float, link: Link, progress: float | None) -> Json:
    """The task as create and status calls return it at `now`; `progress` None leaves that out."""
    state = task.state(now)
    answer: Json = {
        "id": task.id,
        "status": state.value,
        "model": task.request.model,
        "created_at": int(task.created_at),
    }
    if state is State.IN_PROGRESS:
        if progress is not None:
            answer["progress"] = progress
    elif state is State.FAILED:
        answer["error"] = task_error(task)
    else:
        answer["output"] = output(task, link)
        answer["usage"] = {"cost": decimal_text(task.cost), "discount": discount}
        answer["metadata"] = metadata(task)
    return answer


def task_error(task: Task) -> Json:
    """The error of a failed task, with its text under both names that clients read."""
    code, message = task.fate.failure or ("", "")
    return {"code": code, "message": message, "error_message": message}


def output(task: Task, link: Link) -> list[Json]:
    """The output of a completed task: one group with one picture."""
    return [{"content": [{"type": "image", "url": link(task, 0), "jobId": f"job-{task.id}"}]}]


def metadata(task: Task) -> Json:
    """The times of a completed task in unix seconds, and the seed that it used."""
    return {
        "in_queue_at": int(task.created_at),
        "upload_at": int(task.created_at + UPLOAD_SHARE * task.planned),
        "completed_at": int(task.finish_at),
        "seed": task.seed,
    }


def sync_timeout(task: Task) -> Json:
    """What `/sync` answers with 504 when its patience ends before the task does."""
    text = "the task goes on: ask for its status"
    error = {"code": "SYNC_TIMEOUT", "message": text, "error_message": text}
    return {"id": task.id, "status": State.IN_PROGRESS.value, "error": error}


def frame_time(task: Task, cursor: int) -> float:
    """When a stream's `output` frame of that `cursor` (from 1) is due, in unix seconds."""
    return task.created_at + task.planned * cursor / (STREAM_FRAMES + 1)


def frame(task: Task, cursor: int) -> Json:
    """A stream's `output` frame."""
    return {"id": task.id, "status": State.IN_PROGRESS.value, "output": [], "cursor": cursor}


def precharge(model: str, cost: Decimal | None, discount: float) -> Json:
    """The price of a request; with `cost` None, that it is not known."""
    if cost is None:
        return {"status": "failed", "data": {"cost": None, "reason": "COST_CACHE_MISS"}}
    data = {"model": model, "cost": decimal_text(cost), "currency": "USD", "discount": discount, "sample_count": 4}
    return {"status": "success", "data": data}


def queue_state(task: Task, now: float) -> str:
    """The task's state in the words of the queue dialect."""
    if task.state(now) is not State.IN_PROGRESS:
        return "COMPLETED"
    return "IN_QUEUE" if now - task.created_at < QUEUED_SHARE * task.planned else "IN_PROGRESS"


def queue_created(task: Task, base_url: str, position: int) -> Json:
    """What a create in the queue dialect answers."""
    path = f"{base_url}/model/v1/queue/{task.request.model}/requests/{task.id}"
    return {
        "request_id": task.id,
        "status_url": f"{path}/status",
        "response_url": f"{path}/response",
        "cancel_url": f"{path}/cancel",
        "queue_position": position,
    }


def queue_status(task: Task, now: float) -> Json:
    """What a status call in the queue dialect answers."""
    failed = task.state(now) is State.FAILED
    return {
        "request_id": task.id,
        "status": queue_state(task, now),
        "error": task_error(task) if failed else None,
    }


def queue_response(task: Task, now: float, link: Link) -> Json:
    """What a result call in the queue dialect answers."""
    if task.state(now) is not State.COMPLETED:
        return queue_status(task, now)
    picture = {
        "type": "image",
        "url": link(task, 0),
        "content_type": f"image/{task.request.output_format}",
        "file_name": f"{task.id}.{task.request.output_format}",
        "width": task.width,
        "height": task.height,
    }
    return {"request_id": task.id, "outputs": [picture], "metadata": metadata(task)}


def error_body(shape: ErrorShape, *, status: int, code: str, message: str, request_id: str) -> tuple[Any, str]:
    """The body of an HTTP error: a JSON value, or text, and its content type.

    The nested shape has the text as `message` and as `error_message`, since clients read either.
    """
    match shape:
        case ErrorShape.NESTED:
            error = {"code": code, "message": message, "error_message": message}
            return {"error": error, "request_id": request_id}, "application/json"
        case ErrorShape.MESSAGE:
            return {"message": message}, "application/json"
        case ErrorShape.ERROR:
            return {"error": message}, "application/json"
        case ErrorShape.DETAIL:
            return {"detail": message}, "application/json"
        case ErrorShape.HTML:
            return html_page(status), "text/html"
        case ErrorShape.EMPTY:
            return "", "text/plain"


def html_page(status: int) -> str:
    """A page such as a proxy makes."""
    title = f"{status} {phrase(status)}"
    return (
        f"<html>\r\n<head><title>{title}</title></head>\r\n<body>\r\n"
        f"<center><h1>{title}</h1></center>\r\n<hr><center>nginx</center>\r\n</body>\r\n</html>\r\n"
    )


def phrase(status: int) -> str:
    """The reason phrase of an HTTP status."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def retry_after_text(value: float | str, *, as_date: bool, now: float) -> str:
    """A Retry-After: text as it is, seconds rounded up, or the HTTP date that many seconds from `now`."""
    if isinstance(value, str):
        return value
    if as_date:
        return format_datetime(datetime.fromtimestamp(math.ceil(now + value), tz=UTC), usegmt=True)
    return str(math.ceil(value))
