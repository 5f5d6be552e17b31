"""The JSON about tasks and prices, in the plain and in the queue dialect. Pure.

Implements "The task", "Streams", "Precharge" and "The queue dialect" of the protocol page, without any oddity;
`corruption` adds those.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kontext_async.emulator.world import CANCELLED, FAILURE, TaskPhase

if TYPE_CHECKING:
    from collections.abc import Callable
    from decimal import Decimal

    from kontext_async.emulator.validation import CreateRequest
    from kontext_async.emulator.world import Task

    CreateUrl = Callable[[Task, int], str]

Json = dict[str, Any]

QUEUED_SHARE = 0.2
"""The share of its time that a task spends in the queue."""

UPLOAD_SHARE = 0.95
"""The share of its time after which a task's image is uploaded."""

USD, CREDIT = "USD", "credit"
CREDITS_PER_USD = 100

STREAM_FRAMES = 3
"""The number of `output` frames that a stream has before its end."""


def format_amount(amount: Decimal) -> str:
    """Return an amount as a plain decimal string, without trailing zeros."""
    return f"{amount.normalize():f}"


def build_task(task: Task, *, now: float, discount: float, create_url: CreateUrl, progress: float | None) -> Json:
    """Return the task as create and status requests show it at `now`; without `progress` when that is None."""
    phase = task.phase_at(now)
    value: Json = {
        "id": task.id,
        "status": task.planned_outcome.failed_status if phase is TaskPhase.FAILED else phase.value,
        "model": task.request.model,
        "created_at": int(task.created_at),
    }
    if phase is TaskPhase.IN_PROGRESS:
        if progress is not None:
            value["progress"] = progress
    elif phase is TaskPhase.FAILED:
        value["error"] = build_task_error(task)
    else:
        value["output"] = build_output(task, create_url)
        value["usage"] = {"cost": format_amount(task.cost), "discount": discount}
        value["metadata"] = build_metadata(task)
    return value


def build_task_error(task: Task) -> Json:
    """Return the error of a failed task, with its text under both names that clients read."""
    code, message = task.planned_outcome.failure or ("", "")
    return {"code": code, "message": message, "error_message": message}


def build_output(task: Task, create_url: CreateUrl) -> list[Json]:
    """Return the output of a completed task: one group with one image."""
    return [{"content": [{"type": "image", "url": create_url(task, 0), "jobId": f"job-{task.id}"}]}]


def build_metadata(task: Task) -> Json:
    """Return the times of a completed task in unix seconds, and the seed that it used."""
    return {
        "in_queue_at": int(task.created_at),
        "upload_at": int(task.created_at + UPLOAD_SHARE * task.planned_seconds),
        "completed_at": int(task.finish_at),
        "seed": task.seed,
    }


def build_sync_timeout(task: Task) -> Json:
    """Return the body with which `/sync` responds 504 when it stops waiting before the task ends."""
    text = "the task keeps running: poll its status"
    error = {"code": "SYNC_TIMEOUT", "message": text, "error_message": text}
    return {"id": task.id, "status": TaskPhase.IN_PROGRESS.value, "error": error}


def compute_frame_time(task: Task, cursor: int) -> float:
    """Return the time in unix seconds at which a stream's `output` frame of that `cursor` (from 1) is due."""
    return task.created_at + task.planned_seconds * cursor / (STREAM_FRAMES + 1)


def build_frame(task: Task, cursor: int) -> Json:
    """Return a stream's `output` frame."""
    return {"id": task.id, "status": TaskPhase.IN_PROGRESS.value, "output": [], "cursor": cursor}


def build_precharge(
    request: CreateRequest, cost: Decimal | None, *, discount: float, currency: str, now: float
) -> Json:
    """Return the price of a request in a currency; with `cost` None, the response that the price is unknown."""
    if cost is None:
        return {"status": "failed", "data": {"cost": None, "reason": "COST_CACHE_MISS"}}
    data = {
        "model": request.model,
        "billing_model": request.model,
        "original_model": request.model,
        "hash": request.digest,
        "cost": format_amount(cost * CREDITS_PER_USD if currency == CREDIT else cost),
        "currency": currency,
        "discount": discount,
        "sample_count": 4,
        "updated_at": int(now),
    }
    return {"status": "success", "data": data}


def build_queue_error(task: Task) -> Json:
    """Return the fields that say why a task failed, in the queue dialect."""
    code, message = task.planned_outcome.failure or ("", "")
    is_cancelled = code == CANCELLED
    return {
        "error": message,
        "error_type": CANCELLED if is_cancelled else "INFERENCE_FAILURE",
        "provider_error": {"code": code, "message": message},
    }


def get_queue_state(task: Task, now: float) -> str:
    """Return the task's state as the queue dialect spells it."""
    if task.phase_at(now) is not TaskPhase.IN_PROGRESS:
        return "COMPLETED"
    return "IN_QUEUE" if now - task.created_at < QUEUED_SHARE * task.planned_seconds else "IN_PROGRESS"


def build_queue_created(task: Task, base_url: str, position: int) -> Json:
    """Return the response to a create request in the queue dialect."""
    path = f"{base_url}/model/v1/queue/{task.request.model}/requests/{task.id}"
    return {
        "request_id": task.id,
        "status": "queued",
        "status_url": f"{path}/status",
        "response_url": f"{path}/response",
        "cancel_url": f"{path}/cancel",
        "queue_position": position,
    }


def build_failed_result(task: Task, variant: str) -> Json:
    """Return a result that contradicts the status: failed by its status, or completed with an error."""
    word = "failed" if variant == "status" else "COMPLETED"
    return {
        "request_id": task.id,
        "status": word,
        "error": "the worker died",
        "error_type": "INFERENCE_FAILURE",
        "provider_error": {"code": FAILURE[0], "message": FAILURE[1]},
    }


def build_queue_status(task: Task, now: float) -> Json:
    """Return the response to a status request in the queue dialect. A failed task is completed, with an error."""
    phase = task.phase_at(now)
    value: Json = {"request_id": task.id, "status": get_queue_state(task, now), "logs": []}
    if phase is TaskPhase.IN_PROGRESS:
        value["progress"] = task.progress_at(now)
    return value | (build_queue_error(task) if phase is TaskPhase.FAILED else {"error": None})


def build_queue_result(task: Task, now: float, create_url: CreateUrl) -> Json:
    """Return the response to a result request in the queue dialect, which calls a failed task by its name."""
    phase = task.phase_at(now)
    if phase is TaskPhase.FAILED:
        return {"request_id": task.id, "status": task.planned_outcome.failed_status, **build_queue_error(task)}
    if phase is TaskPhase.IN_PROGRESS:
        return build_queue_status(task, now)
    image = {
        "type": "image",
        "url": create_url(task, 0),
        "content_type": f"image/{task.request.output_format}",
        "file_name": f"{task.id}.{task.request.output_format}",
        "width": task.width,
        "height": task.height,
    }
    return {
        "request_id": task.id,
        "status": get_queue_state(task, now),
        "outputs": [image],
        "metadata": build_metadata(task),
    }
