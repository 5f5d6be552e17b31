"""The command ``kontext-async status``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from kontext_async.cli.each_task import request_each
from kontext_async.cli.exit_codes import ExitCode, exit_code_for
from kontext_async.cli.options import GatewayOptions, OutputOptions
from kontext_async.cli.output import Output, error_to_json, to_one_line
from kontext_async.cli.session import open_session
from kontext_async.cli.signals import run_with_signals
from kontext_async.errors import KontextError

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    return await run_with_signals(_status(ids, gateway or GatewayOptions(), Output(output or OutputOptions())))


async def _status(ids: Sequence[str], options: GatewayOptions, output: Output) -> int:
    code = ExitCode.DONE
    async with open_session(options, output) as session:

        async def poll(task_id: str) -> TaskStatus:
            return await session.attach(task_id).status()

        for task_id, result in await request_each(ids, poll):
            _print(task_id, result, output)
            if isinstance(result, KontextError):
                code = max(code, exit_code_for(result))
    return code


def _print(task_id: str, result: TaskStatus | KontextError, output: Output) -> None:
    if output.options.json:
        output.out(json.dumps(_to_json(task_id, result)))
    elif not isinstance(result, KontextError):
        output.out(to_one_line(_to_text(result)))
    if isinstance(result, KontextError):
        output.error(result)


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


def _to_json(task_id: str, result: TaskStatus | KontextError) -> dict[str, Any]:
    """Return the object for machines: `error` is that of the status request, `task_error` that of the task."""
    if isinstance(result, KontextError):
        return {"task_id": task_id, "state": None, "error": error_to_json(result)}
    detail = result.error
    return {
        "task_id": result.task_id,
        "state": result.state.value,
        "raw_status": result.raw_status,
        "progress": result.progress,
        "model": result.model,
        "created_at": result.created_at.isoformat() if result.created_at else None,
        "cost": str(result.usage.cost) if result.usage and result.usage.cost is not None else None,
        "urls": [image.url for image in result.images],
        "task_error": {"code": detail.code, "message": detail.message} if detail else None,
        "error": None,
    }
