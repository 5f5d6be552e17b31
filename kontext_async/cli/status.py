"""``kontext-async status``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from kontext_async.cli.exits import ExitCode, exit_code_of
from kontext_async.cli.options import GatewayOptions, OutputOptions
from kontext_async.cli.output import Output, error_as_json, one_line
from kontext_async.errors import KontextError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kontext_async.models import TaskStatus
    from kontext_async.session import KontextSession

__all__ = ["status"]

ASKED_AT_ONCE = 16


async def status(
    ids: Annotated[list[str], Parameter(name="ID", required=True)],
    /,
    *,
    gateway: GatewayOptions | None = None,
    output: OutputOptions | None = None,
) -> int:
    """Ask once for each task how it is getting on.

    A task that failed was asked for successfully: the exit code is 0.

    Args:
        ids: The ids of tasks.
        gateway: Which gateway is asked.
        output: What is printed.
    """
    from kontext_async.cli.signals import until_terminated  # noqa: PLC0415 # it takes its time

    return await until_terminated(_status(ids, gateway or GatewayOptions(), Output(output or OutputOptions())))


async def _status(ids: Sequence[str], options: GatewayOptions, output: Output) -> int:
    from kontext_async.cli.attending import attended_session  # noqa: PLC0415 # aiohttp takes its time

    code = ExitCode.DONE
    async with attended_session(options, output) as session:
        for task_id, answer in zip(ids, await _answers(session, ids), strict=True):
            _print(task_id, answer, output)
            if isinstance(answer, KontextError):
                code = max(code, exit_code_of(answer))
    return code


async def _answers(session: KontextSession, ids: Sequence[str]) -> list[TaskStatus | KontextError]:
    import anyio  # noqa: PLC0415 # it takes its time

    answers: dict[int, TaskStatus | KontextError] = {}
    free = anyio.Semaphore(ASKED_AT_ONCE)

    async def ask(place: int, task_id: str) -> None:
        async with free:
            try:
                answers[place] = await session.attach(task_id).status()
            except KontextError as error:
                answers[place] = error

    async with anyio.create_task_group() as group:
        for place, task_id in enumerate(ids):
            group.start_soon(ask, place, task_id)
    return [answers[place] for place in range(len(ids))]


def _print(task_id: str, answer: TaskStatus | KontextError, output: Output) -> None:
    if output.options.json:
        output.out(json.dumps(_as_json(task_id, answer)))
    elif not isinstance(answer, KontextError):
        output.out(one_line(_line(answer)))
    if isinstance(answer, KontextError):
        output.error(answer)


def _line(status: TaskStatus) -> str:
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


def _as_json(task_id: str, answer: TaskStatus | KontextError) -> dict[str, Any]:
    if isinstance(answer, KontextError):
        return {"task_id": task_id, "state": None, "error": error_as_json(answer)}
    problem = answer.error
    return {
        "task_id": answer.task_id,
        "state": answer.state.value,
        "word": answer.raw_status,
        "progress": answer.progress,
        "model": answer.model,
        "created_at": answer.created_at.isoformat() if answer.created_at else None,
        "cost": str(answer.usage.cost) if answer.usage and answer.usage.cost is not None else None,
        "urls": [image.url for image in answer.images],
        "problem": {"code": problem.code, "message": problem.message} if problem else None,
        "error": None,
    }
