"""The command ``kontext-async status``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from kontext_async.cli.each_task import Report, report_each
from kontext_async.cli.options import GatewayOptions, OutputOptions  # noqa: TC001 # cyclopts resolves them

if TYPE_CHECKING:
    from kontext_async.models import TaskStatus

__all__ = ["status"]


async def status(
    ids: Annotated[list[str], Parameter(name="REFERENCE", required=True)],
    /,
    *,
    gateway: GatewayOptions | None = None,
    output: OutputOptions | None = None,
) -> int:
    """Print the current status of each task.

    Args:
        ids: The task IDs, or the references of the tasks as errors or other commands show them.
        gateway: The gateway to use.
        output: The output options.
    """
    return await report_each(ids, lambda task: task.status(), REPORT, gateway, output)


def _to_text(status: TaskStatus) -> str:
    words = [status.task_id, status.state.value]
    if status.raw_status != status.state.value:
        words.append(f"({status.raw_status})")
    if status.progress is not None and not status.state.is_terminal:
        words.append(f"{status.progress:.0%}")
    if status.usage and status.usage.cost is not None:
        words.append(f"{status.usage.cost} USD")
    if status.error:
        words.append(f"{status.error.message} [{status.error.code}]" if status.error.code else status.error.message)
    return " ".join(words)


def _to_json(status: TaskStatus) -> dict[str, Any]:
    """Return the object for machines: `error` is that of the status request, `task_error` that of the task."""
    detail = status.error
    return {
        "task_id": status.task_id,
        "state": status.state.value,
        "raw_status": status.raw_status,
        "progress": status.progress,
        "model": status.model,
        "created_at": status.created_at.isoformat() if status.created_at else None,
        "cost": str(status.usage.cost) if status.usage and status.usage.cost is not None else None,
        "urls": [image.url for image in status.images],
        "task_error": {"code": detail.code, "message": detail.message} if detail else None,
    }


REPORT = Report(to_text=_to_text, to_json=_to_json, unknown={"state": None})
