"""The command ``kontext-async fetch``."""

from __future__ import annotations

import os
from typing import Annotated

from cyclopts import Parameter

from kontext_async.cli.exit_codes import ExitCode, exit_code_for
from kontext_async.cli.options import GatewayOptions, OutputOptions, create_directory
from kontext_async.cli.output import Output, Result
from kontext_async.cli.session import open_session
from kontext_async.cli.signals import run_with_signals
from kontext_async.cli.unsaved_tasks import UnsavedTasks, print_resume_commands
from kontext_async.cli.values import to_path
from kontext_async.errors import KontextError

__all__ = ["fetch"]


async def fetch(
    reference: Annotated[str, Parameter(name="REFERENCE")],
    /,
    *,
    out: Annotated[str, Parameter(alias="-o", metavar="PATH")],
    gateway: GatewayOptions | None = None,
    output: OutputOptions | None = None,
) -> int:
    """Wait for a task that was submitted earlier, and save its images.

    Args:
        reference: The task ID, or the reference of the task as an error or another command shows it.
        out: The file for the image, or a directory. Several images are numbered.
        gateway: The gateway to use.
        output: The output options.
    """
    return await run_with_signals(
        _fetch(reference, out, gateway or GatewayOptions(), Output(output or OutputOptions()))
    )


async def _fetch(reference: str, out: str, options: GatewayOptions, output: Output) -> int:
    target = to_path(out)
    unsaved = UnsavedTasks()
    async with open_session(options, output) as session:
        task = session.attach(reference)
        create_directory(target if out.endswith(("/", os.sep)) else target.parent)
        unsaved.add(task.id, str(task.reference))
        try:
            generation = await task.wait(options.timeout)
            paths = await session.save(generation, target)
        except KontextError as error:
            output.result(Result(index=0, task_id=task.id, error=error.with_task(task.id, str(task.reference))))
            return exit_code_for(error)
        except BaseException:
            print_resume_commands(unsaved, options, target, output)
            raise
    output.result(Result(index=0, task_id=task.id, paths=paths, cost=generation.usage.cost))
    return ExitCode.DONE
