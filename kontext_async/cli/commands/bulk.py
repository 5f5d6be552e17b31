"""The command ``kontext-async bulk``."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 # attrs resolves it
from contextlib import aclosing
from pathlib import Path  # noqa: TC003 # cyclopts resolves it
from typing import TYPE_CHECKING, Annotated, Any

from attrs import define, field
from cyclopts import Parameter

from kontext_async.bulk import BulkRun, check_extra, read_requests
from kontext_async.cli.bulk_summary import print_plan, print_report
from kontext_async.cli.exit_codes import ExitCode, MissingApiKey
from kontext_async.cli.options import BulkOptions, OutputOptions, RequestOptions, RunOptions, StoreOptions
from kontext_async.cli.output import Output, Result
from kontext_async.cli.progress import PeriodicLines, show_progress
from kontext_async.cli.progress_counts import ProgressCounts
from kontext_async.cli.session import open_gateway
from kontext_async.cli.signals import run_with_signals
from kontext_async.cli.validation import refuse_file, validate_file
from kontext_async.cli.values import LocalPath  # noqa: TC001 # cyclopts resolves it
from kontext_async.errors import AuthenticationFailed, KontextError, PermissionDenied

if TYPE_CHECKING:
    from kontext_async.bulk import BulkOutcome, BulkReport
    from kontext_async.bulk.models import RunPlan
    from kontext_async.session import KontextSession
    from kontext_async.settings import StoreSettings

__all__ = ["BulkCommand", "bulk"]


async def bulk(
    file: LocalPath,
    /,
    *,
    out: Annotated[LocalPath, Parameter(alias="-o", metavar="DIR")],
    run: BulkOptions | None = None,
    store: StoreOptions | None = None,
    request: RequestOptions | None = None,
    gateway: RunOptions | None = None,
    output: OutputOptions | None = None,
) -> int:
    """Generate an image for each line of a file.

    Args:
        file: The prompt file.
        out: The directory for the images, the reports and the journal; created if it does not exist.
        run: The cost limit, and what to resubmit.
        store: The store of the run.
        request: The fields that a line may leave out.
        gateway: The gateway to use.
        output: The output options.
    """
    check_extra()
    fields = (request or RequestOptions()).fields()
    printer = Output(output or OutputOptions())
    validation = await validate_file(file, fields, printer)
    if validation.invalid or not validation.requests:
        return refuse_file(file, validation, printer)
    command = BulkCommand(
        file=file,
        directory=out,
        fields=fields,
        total=validation.requests,
        run_options=run or BulkOptions(),
        store_options=store or StoreOptions(),
        gateway_options=gateway or RunOptions(),
        output=printer,
    )
    return await run_with_signals(command.plan() if command.run_options.dry_run else command.run(), stop=command.stop)


@define(kw_only=True)
class BulkCommand:
    """One call of the command, with a file that is valid.

    Attributes:
        file: The prompt file.
        directory: The directory of the run.
        fields: The fields that a line may leave out.
        total: The number of requests in the file.
        run_options: The cost limit, and what to resubmit.
        store_options: The store of the run.
        gateway_options: The gateway to use.
        output: The output to print to.
    """

    file: Path
    directory: Path
    fields: Mapping[str, Any]
    total: int
    run_options: BulkOptions
    store_options: StoreOptions
    gateway_options: RunOptions
    output: Output
    _run: BulkRun | None = field(default=None, init=False)
    _is_interrupted: bool = field(default=False, init=False)

    def stop(self) -> None:
        """Stop submitting, and end the run when the tasks in flight are done or the grace period is over."""
        self._is_interrupted = True
        if self._run:
            grace = self.run_options.grace
            self.output.note(
                f"Stopping: no new submissions, waiting up to {grace:g} s for tasks in flight. "
                "Press Ctrl-C again to quit now."
            )
            self._run.stop(grace)

    async def run(self) -> ExitCode:
        """Run all requests, and print the report.

        Raises:
            KontextError: The run could not start, or could not continue.
        """
        settings = self.gateway_options.settings()
        url = self.store_options.url()
        async with open_gateway(self.gateway_options, self.output) as gateway, gateway.new_session(settings) as session:
            self._run = run = BulkRun(
                session, self.directory, store=url, run=self.store_options.run, **self.run_options.run_arguments()
            )
            if self._is_interrupted:
                run.stop(0)
            try:
                await self._run_with_progress(run, session)
            finally:
                report = _report_of(run)
                if report:
                    print_report(
                        report,
                        total=self.total,
                        directory=self.directory,
                        is_interrupted=self._is_interrupted,
                        gateway=gateway,
                        output=self.output,
                    )
        return _exit_code(report) if report else ExitCode.FAILED

    async def plan(self) -> ExitCode:
        """Print what a run would do and cost. Nothing is submitted, and nothing is written.

        Raises:
            RunRefused: The run could not start.
        """
        settings = self.gateway_options.settings()
        max_cost = self.run_options.run_arguments()["max_cost"]
        try:
            async with (
                open_gateway(self.gateway_options, self.output) as gateway,
                gateway.new_session(settings) as session,
            ):
                plan = await self._predict(settings.store, session)
        except MissingApiKey:  # a plan works without prices, which need a key
            plan = await self._predict(settings.store, None)
        print_plan(plan, max_cost, self.output)
        return ExitCode.DONE

    async def _predict(self, settings: StoreSettings, session: KontextSession | None) -> RunPlan:
        from kontext_async.bulk.dry_run import plan_run  # noqa: PLC0415 # it needs the extra

        with read_requests(self.file, defaults=self.fields) as requests:
            return await plan_run(
                requests,
                self.directory,
                session=session,
                settings=settings,
                store=self.store_options.new_store(settings),
                run=self.store_options.run,
                resend_uncertain=self.run_options.resend_uncertain,
                retry_failed=self.run_options.retry_failed,
                on_progress=PeriodicLines[int](self.output, lambda read: f"{read} of {self.total} requests looked up"),
            )

    async def _run_with_progress(self, run: BulkRun, session: KontextSession) -> None:
        """Run with the progress display, and print each outcome."""
        with (
            read_requests(self.file, defaults=self.fields) as requests,
            show_progress(session, self.output, self.total, lambda: _counts_of(run)),
        ):
            async with aclosing(run.outcomes(requests)) as outcomes:
                async for outcome in outcomes:
                    self._print(outcome)

    def _print(self, outcome: BulkOutcome) -> None:
        if outcome.skipped and outcome.ok:
            return
        root = self.directory.absolute()  # the paths are printed as the user wrote the directory
        self.output.result(
            Result(
                index=outcome.index,
                request=outcome.request,
                task_id=outcome.task_id,
                paths=[self.directory / path.relative_to(root) for path in outcome.files] if outcome.ok else (),
                cost=outcome.cost,
                error=outcome.error,
            )
        )


def _report_of(run: BulkRun) -> BulkReport | None:
    try:
        return run.report
    except KontextError:  # the run did not start
        return None


def _counts_of(run: BulkRun) -> ProgressCounts:
    progress = run.progress()
    return ProgressCounts(
        completed=progress.done,
        failed=progress.failed,
        in_flight=progress.in_flight,
        spent=progress.spent,
        skipped=progress.skipped,
    )


def _exit_code(report: BulkReport) -> ExitCode:
    """Return the exit code. Uncertain requests come first: they may be billed unseen."""
    if report.uncertain_in_input:
        return ExitCode.UNCERTAIN
    if isinstance(report.stopped, AuthenticationFailed | PermissionDenied):
        return ExitCode.KEY_OR_BALANCE
    return ExitCode.DONE if report.complete else ExitCode.FAILED
