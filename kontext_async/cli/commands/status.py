"""The command ``kontext-async status``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import anyio
from cyclopts import Parameter

from kontext_async.cli.exit_codes import ExitCode, exit_code_for
from kontext_async.cli.options import GatewayOptions, OutputOptions
from kontext_async.cli.output import Output, error_to_json, to_one_line
from kontext_async.cli.session import open_session
from kontext_async.cli.signals import run_with_signals
from kontext_async.errors import KontextError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kontext_async.models import TaskStatus
    from kontext_async.session import KontextSession

__all__ = ["status"]

POLLS_AT_ONCE = 16


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
        for task_id, result in zip(ids, await _request_statuses(session, ids), strict=True):
            _print(task_id, result, output)
            if isinstance(result, KontextError):
                code = max(code, exit_code_for(result))
    return code


async def _request_statuses(session: KontextSession, ids: Sequence[str]) -> list[TaskStatus | KontextError]:
    """Return the status of each task, or the error of its request, in the order of the IDs."""
    results: dict[int, TaskStatus | KontextError] = {}
    free = anyio.Semaphore(POLLS_AT_ONCE)

    async def poll(index: int, task_id: str) -> None:
        async with free:
            try:
                results[index] = await session.attach(task_id).status()
            except KontextError as error:
                results[index] = error

    async with anyio.create_task_group() as group:
        for index, task_id in enumerate(ids):
            group.start_soon(poll, index, task_id)
    return [results[index] for index in range(len(ids))]


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
