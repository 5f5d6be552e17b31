"""The command ``kontext-async generate``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from kontext_async.bulk import check_image_files
from kontext_async.cli.options import OutputOptions, RequestOptions, RunOptions, create_directory
from kontext_async.cli.output import Output, count_of
from kontext_async.cli.progress import show_progress
from kontext_async.cli.save_all import SaveAll
from kontext_async.cli.session import open_gateway
from kontext_async.cli.signals import run_with_signals
from kontext_async.cli.unsaved_tasks import UncertainReporter, print_resume_commands
from kontext_async.cli.values import LocalPath  # noqa: TC001 # cyclopts resolves it
from kontext_async.events import Abandoned, Accepted, Failed
from kontext_async.models import KontextRequest

if TYPE_CHECKING:
    from collections.abc import Sequence

    from kontext_async.cli.exit_codes import ExitCode

__all__ = ["generate"]


async def generate(
    prompts: Annotated[list[str], Parameter(name="PROMPT", required=True)],
    /,
    *,
    out: Annotated[LocalPath, Parameter(alias="-o", metavar="DIR")] = Path(),
    request: RequestOptions | None = None,
    gateway: RunOptions | None = None,
    output: OutputOptions | None = None,
) -> int:
    """Generate an image for each prompt.

    Args:
        prompts: The image to generate, or the change to make to the input images.
        out: The directory for the images; created if it does not exist.
        request: The request fields except the prompts.
        gateway: The gateway to use.
        output: The output options.
    """
    fields = (request or RequestOptions()).fields()
    requests = [KontextRequest.of(prompt, **fields) for prompt in prompts]
    check_image_files(requests[0])
    printer = Output(output or OutputOptions())
    return await run_with_signals(_generate(requests, out, gateway or RunOptions(), printer))


async def _generate(
    requests: Sequence[KontextRequest], directory: Path, options: RunOptions, output: Output
) -> ExitCode:
    """Run requests, save their images in `directory`, and print what happened to each.

    Raises:
        ConfigurationError: An option is invalid, there is no API key, or the directory cannot be created.
        KontextError: The session ended.
    """
    settings = options.settings()
    async with open_gateway(options, output) as gateway:
        create_directory(directory)
        run = SaveAll(gateway.new_session(settings), requests, directory, output)
        began = time.monotonic()
        run.session.subscribe(run.unsaved, Accepted, Failed)
        try:
            await _run_with_progress(run)
        finally:
            spent = run.session.statistics().spent
            output.note(f"{run.counts}, {spent} USD spent, {time.monotonic() - began:.1f} s")
            gateway.print_ledger(output)
            print_resume_commands(run.unsaved, options, directory, output)
        if run.counts.refusal and run.submitted < len(requests):
            output.error(f"{count_of(len(requests) - run.submitted, 'request')} not submitted: {run.counts.refusal}")
        return run.counts.exit_code


async def _run_with_progress(run: SaveAll) -> None:
    """Run with the progress display, and report uncertain requests if the run is interrupted."""
    session, output = run.session, run.output
    with show_progress(session, output, len(run.requests)):
        async with session:
            try:
                await run.run()
            except BaseException:
                output.note("Stopping: no new submissions, waiting for the responses to requests in flight.")
                session.subscribe(UncertainReporter(output), Abandoned, Failed)  # from now on these have no outcome
                raise
