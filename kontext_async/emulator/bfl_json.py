"""The JSON of Black Forest Labs' API: tasks, refusals and webhooks. Pure.

Implements "The task", "Errors over HTTP" and "Webhooks" of its protocol page.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from http import HTTPStatus
from typing import TYPE_CHECKING

from kontext_async.emulator.task_json import CREDITS_PER_USD, QUEUED_SHARE
from kontext_async.emulator.world import TaskPhase

if TYPE_CHECKING:
    from decimal import Decimal

    from kontext_async.emulator.task_json import CreateUrl, Json
    from kontext_async.emulator.world import Refusal, Task

PIXELS_PER_MEGAPIXEL = 1_000_000
SECRET, SIGNATURE = "secret", "signature"
WEBHOOK_FORMS = (SECRET, SIGNATURE)
"""The two forms in which a webhook shows its secret: as it is, or as a signature of the body."""


def to_credits(amount: Decimal) -> float:
    """Return an amount of USD in credits."""
    return float(amount * CREDITS_PER_USD)


def build_created(task: Task, polling_url: str | None, price: Decimal | None, webhook_url: str | None) -> Json:
    """Return the response to a create request: with an address, or with a webhook and without an address."""
    value: Json = {"id": task.id}
    if webhook_url is None:
        value["polling_url"] = polling_url
    else:
        value |= {"status": "Pending", "webhook_url": webhook_url}
    return value | {
        "cost": None if price is None else to_credits(price),
        "input_mp": 0.0,
        "output_mp": round(task.width * task.height / PIXELS_PER_MEGAPIXEL, 2),
    }


def build_task(task: Task, *, now: float, create_url: CreateUrl, progress: float | None, settles: bool) -> Json:
    """Return a task as `get_result` shows it at `now`; with `settles`, a finished one has its cost."""
    phase = task.phase_at(now)
    value: Json = {
        "id": task.id,
        "status": get_status(task, now),
        "result": None,
        "progress": None,
        "details": None,
        "preview": None,
    }
    if phase is TaskPhase.IN_PROGRESS:
        return value | {"progress": progress}
    if settles:
        value["cost"] = to_credits(task.cost)
    if phase is TaskPhase.FAILED:
        _, message = task.planned_outcome.failure or ("", "")
        name = "Moderation Reasons" if task.planned_outcome.moderated else "Error"
        return value | {"details": {name: [message]}}
    return value | {"result": build_result(task, create_url)}


def get_status(task: Task, now: float) -> str:
    """Return the status text of a task."""
    phase = task.phase_at(now)
    if phase is TaskPhase.IN_PROGRESS:
        return "Pending"
    if phase is TaskPhase.COMPLETED:
        return "Ready"
    stage = task.planned_outcome.moderated
    return f"{stage.capitalize()} Moderated" if stage else "Error"


def build_result(task: Task, create_url: CreateUrl) -> Json:
    """Return the result of a completed task: its image, and the prompt and the seed that were used."""
    start = task.created_at + QUEUED_SHARE * task.planned_seconds
    return {
        "sample": create_url(task, 0),
        "prompt": task.request.prompt,
        "seed": task.seed,
        "start_time": start,
        "end_time": task.finish_at,
        "duration": round(task.finish_at - start, 6),
    }


def build_not_found(task_id: str) -> Json:
    """Return the response about a task that is not known here."""
    return {
        "id": task_id,
        "status": "Task not found",
        "result": None,
        "progress": None,
        "details": None,
        "preview": None,
    }


def build_refusal(refusal: Refusal) -> tuple[int, Json]:
    """Return the HTTP status and the body of a refusal: the rules are named in a list, other reasons as text."""
    if refusal.code == "INSUFFICIENT_BALANCE":
        return HTTPStatus.PAYMENT_REQUIRED, {"detail": "Insufficient credits"}
    if refusal.code != "INVALID_PARAMETER":
        return refusal.status, {"detail": refusal.message}
    place = ["body", *refusal.field.split(".")] if refusal.field else ["body"]
    text = refusal.message.removeprefix(f"{refusal.field}: ")
    kind = "missing" if text == "is required" else "value_error"
    message = "Field required" if kind == "missing" else text
    return HTTPStatus.UNPROCESSABLE_ENTITY, {"detail": [{"loc": place, "msg": message, "type": kind}]}


def build_delivery(task: Task, now: float, create_url: CreateUrl, *, has_task_shape: bool) -> Json:
    """Return the body of a webhook, in either of the shapes that are documented."""
    if has_task_shape:
        return build_task(task, now=now, create_url=create_url, progress=None, settles=False)
    value: Json = {
        "id": task.id,
        "status": get_status(task, now),
        "timestamp": datetime.fromtimestamp(now, UTC).isoformat().replace("+00:00", "Z"),
    }
    if task.phase_at(now) is TaskPhase.FAILED:
        code, message = task.planned_outcome.failure or ("", "")
        return value | {"error": code, "message": message}
    result = build_result(task, create_url)
    return value | {"result": {name: result[name] for name in ("sample", "prompt", "seed")}}


def build_secret_headers(form: str, secret: str | None, body: bytes) -> dict[str, str]:
    """Return the header by which a webhook shows its secret, in one of the two forms; none without a secret."""
    if secret is None:
        return {}
    if form == SECRET:
        return {"X-Webhook-Secret": secret}
    digest = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    return {"X-BFL-Signature": f"sha256={digest}"}
