"""``kontext-async fetch``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from kontext_async.cli.exits import ExitCode, exit_code_of
from kontext_async.cli.options import GatewayOptions, OutputOptions
from kontext_async.cli.output import Output, Result
from kontext_async.errors import KontextError

__all__ = ["fetch"]


async def fetch(
    task_id: Annotated[str, Parameter(name="ID")],
    /,
    *,
    out: Annotated[str, Parameter(alias="-o", metavar="PATH")],
    gateway: GatewayOptions | None = None,
    output: OutputOptions | None = None,
) -> int:
    """Take up a task that was submitted earlier: wait until it is finished, and save its pictures.

    Args:
        task_id: The id of the task.
        out: The picture's file, or a directory. Several pictures are numbered.
        gateway: Which gateway is asked.
        output: What is printed.
    """
    from kontext_async.cli.signals import until_terminated  # noqa: PLC0415 # it takes its time

    return await until_terminated(_fetch(task_id, out, gateway or GatewayOptions(), Output(output or OutputOptions())))


async def _fetch(task_id: str, out: str, options: GatewayOptions, output: Output) -> int:
    from kontext_async.cli.attending import attended_session  # noqa: PLC0415 # aiohttp takes its time
    from kontext_async.cli.listeners import Paid  # noqa: PLC0415
    from kontext_async.cli.run import make_directory, tell_unfinished  # noqa: PLC0415

    target = Path(out)
    paid = Paid()
    async with attended_session(options, output) as session:
        task = session.attach(task_id)
        make_directory(target if out.endswith(("/", os.sep)) else target.parent)
        paid.add(task.id)
        try:
            generation = await task.wait(options.timeout)
            paths = await session.save(generation, target)
        except KontextError as error:
            output.result(Result(index=0, task_id=task.id, error=error.with_task(task.id)))
            return exit_code_of(error)
        except BaseException:
            tell_unfinished(paid, options, target, output)
            raise
    output.result(Result(index=0, task_id=task.id, paths=paths, cost=generation.usage.cost))
    return ExitCode.DONE
