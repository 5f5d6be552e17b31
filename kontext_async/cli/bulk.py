"""``kontext-async bulk``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 # cyclopts resolves it
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from kontext_async.cli.exits import ExitCode
from kontext_async.cli.options import BulkOptions, OutputOptions, RequestOptions, RunOptions
from kontext_async.cli.output import Output

if TYPE_CHECKING:
    from kontext_async.bulk import Survey

__all__ = ["bulk"]

MAX_FAULTS = 20


async def bulk(
    file: Path,
    /,
    *,
    out: Annotated[Path, Parameter(alias="-o", metavar="DIR")],
    run: BulkOptions | None = None,
    request: RequestOptions | None = None,
    gateway: RunOptions | None = None,
    output: OutputOptions | None = None,
) -> int:
    """Make a picture of every line of a file, and print where it is as soon as it is there.

    The file is .txt (a prompt a line), .jsonl (a string or an object a line),
    .csv or .tsv (with a header). Columns are named after the fields of a
    request; what a line does not give comes from the options. Every line is
    checked before the first one is submitted.

    The same command goes on where it was left, however it ended: what is
    finished is skipped, what was accepted is fetched, and nothing is paid
    twice. DIR gets the pictures, results.jsonl, index.html (a contact sheet)
    and the journal.

    Args:
        file: The prompts.
        out: Where the pictures go; it is made when it is missing.
        run: How much is spent, and what is tried again.
        request: The fields that a line may leave out.
        gateway: Which gateway is asked.
        output: What is printed.
    """
    from anyio import to_thread  # noqa: PLC0415 # these take their time

    from kontext_async.bulk import check_extra, survey_requests  # noqa: PLC0415

    check_extra()
    fields = (request or RequestOptions()).fields()
    printer = Output(output or OutputOptions())
    survey = await to_thread.run_sync(
        lambda: survey_requests(file, defaults=fields, max_faults=MAX_FAULTS), abandon_on_cancel=True
    )
    if survey.ignored:
        printer.note(f"columns ignored: {', '.join(survey.ignored)}")
    if survey.faults or not survey.requests:
        return _refuse(file, survey, printer)

    from kontext_async.cli.bulk_run import Job  # noqa: PLC0415 # aiohttp and the database take their time
    from kontext_async.cli.signals import until_terminated  # noqa: PLC0415

    job = Job(
        file=file,
        directory=out,
        fields=fields,
        total=survey.requests,
        run_options=run or BulkOptions(),
        gateway_options=gateway or RunOptions(),
        output=printer,
    )
    return await until_terminated(job.plan() if job.run_options.dry_run else job.run(), stop=job.stop)


def _refuse(file: Path, survey: Survey, output: Output) -> ExitCode:
    for fault in survey.faults:
        output.error(fault)
    if not survey.faults:
        output.error(f"{file} holds no requests")
    elif len(survey.faults) == MAX_FAULTS:
        output.error(f"the rest of {file} was not read")
    output.note("nothing was submitted")
    return ExitCode.MISUSED
