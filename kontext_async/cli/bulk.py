"""``kontext-async bulk``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 # cyclopts resolves it
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from kontext_async.cli.exits import ExitCode
from kontext_async.cli.options import OutputOptions, RequestOptions, RunOptions
from kontext_async.cli.output import Output

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kontext_async.bulk.readers import Survey

__all__ = ["bulk"]

MAX_FAULTS = 20


async def bulk(
    file: Path,
    /,
    *,
    out: Annotated[Path, Parameter(alias="-o", metavar="DIR")],
    request: RequestOptions | None = None,
    gateway: RunOptions | None = None,
    output: OutputOptions | None = None,
) -> int:
    """Make a picture of every line of a file, and print where it is as soon as it is there.

    The file is .txt (a prompt a line), .jsonl (a string or an object a line),
    .csv or .tsv (with a header). Columns are named after the fields of a
    request; what a line does not give comes from the options. Every line is
    checked before the first one is submitted. Pictures are named after their
    request's place, from 0, and its prompt; those that are there are
    overwritten.

    Args:
        file: The prompts.
        out: Where the pictures go; it is made when it is missing.
        request: The fields that a line may leave out.
        gateway: Which gateway is asked.
        output: What is printed.
    """
    from kontext_async.cli.signals import until_terminated  # noqa: PLC0415 # it takes its time

    fields = (request or RequestOptions()).fields()
    return await until_terminated(_bulk(file, out, fields, gateway or RunOptions(), Output(output or OutputOptions())))


async def _bulk(file: Path, out: Path, fields: Mapping[str, Any], options: RunOptions, output: Output) -> int:
    from anyio import to_thread  # noqa: PLC0415 # these take their time

    from kontext_async.bulk.readers import read_requests, survey_requests  # noqa: PLC0415
    from kontext_async.cli.names import name_by_index  # noqa: PLC0415
    from kontext_async.cli.run import run_requests  # noqa: PLC0415

    survey = await to_thread.run_sync(
        lambda: survey_requests(file, defaults=fields, max_faults=MAX_FAULTS), abandon_on_cancel=True
    )
    if survey.ignored:
        output.note(f"columns ignored: {', '.join(survey.ignored)}")
    if survey.faults or not survey.requests:
        return _refuse(file, survey, output)
    with read_requests(file, defaults=fields) as requests:
        return await run_requests(
            requests, total=survey.requests, directory=out, name=name_by_index, options=options, output=output
        )


def _refuse(file: Path, survey: Survey, output: Output) -> ExitCode:
    for fault in survey.faults:
        output.error(fault)
    if not survey.faults:
        output.error(f"{file} holds no requests")
    elif len(survey.faults) == MAX_FAULTS:
        output.error(f"the rest of {file} was not read")
    output.note("nothing was submitted")
    return ExitCode.MISUSED
