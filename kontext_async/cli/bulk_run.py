"""What ``kontext-async bulk`` does once its file is known to be good: the run, or what it would be."""

from __future__ import annotations

import shlex
from collections.abc import Mapping  # noqa: TC003 # attrs resolves it
from contextlib import ExitStack, aclosing
from pathlib import Path  # noqa: TC003 # as above
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from kontext_async.bulk import BulkRun, read_requests
from kontext_async.cli.exits import ExitCode, NoUsableKey
from kontext_async.cli.gateway import gateway
from kontext_async.cli.invocation import invocation
from kontext_async.cli.listeners import EventLines
from kontext_async.cli.options import BulkOptions, RunOptions  # noqa: TC001 # as above
from kontext_async.cli.output import Output, Result
from kontext_async.cli.progress import shown_progress
from kontext_async.errors import AuthenticationFailed, KontextError, PermissionDenied
from kontext_async.session import KontextSession

if TYPE_CHECKING:
    from decimal import Decimal

    from kontext_async.bulk import BulkOutcome, BulkReport
    from kontext_async.bulk.plan import Plan
    from kontext_async.cli.gateway import Gateway

__all__ = ["Job"]

LISTED = 20
"""Uncertain requests that are named; the contact sheet has all of them."""


@frozen(kw_only=True)
class _Figures:
    """What the display of a run shows."""

    completed: int
    failed: int
    in_flight: int
    spent: Decimal
    skipped: int


@define(kw_only=True)
class Job:
    """One call of the command.

    Attributes:
        file: The prompts.
        directory: The run's directory.
        fields: What a line may leave out.
        total: How many requests there are.
        run_options: How much is spent, and what is tried again.
        gateway_options: Which gateway is asked.
        output: What is printed.
    """

    file: Path
    directory: Path
    fields: Mapping[str, Any]
    total: int
    run_options: BulkOptions
    gateway_options: RunOptions
    output: Output
    _run: BulkRun | None = field(default=None, init=False)
    _stopped: bool = field(default=False, init=False)

    def stop(self) -> None:
        """Submit nothing more, and end well."""
        self._stopped = True
        if self._run:
            grace = self.run_options.grace
            self.output.note(
                f"stopping: nothing more is submitted; what is in flight has {grace:g} s to be finished. "
                "Once more ends at once"
            )
            self._run.stop(grace)

    async def run(self) -> ExitCode:
        """Run everything, and say what became of it.

        Raises:
            KontextError: The run could not begin, or could not go on.
        """
        settings = self.gateway_options.settings()
        async with gateway(self.gateway_options) as service:
            session = KontextSession(service.api_key, base_url=service.base_url, settings=settings)
            async with session:
                self._run = run = BulkRun(session, self.directory, **self.run_options.arguments())
                if self._stopped:
                    run.stop(0)
                try:
                    await self._attended(run, session)
                finally:
                    report = self._summarize(run, service)
        return self._code(report) if report else ExitCode.FAILED

    async def plan(self) -> ExitCode:
        """Say what a run would do and cost. Nothing is submitted, and nothing is written.

        Raises:
            RunRefused: The run could not begin.
        """
        from kontext_async.bulk.plan import made_plan  # noqa: PLC0415 # the database takes its time

        settings = self.gateway_options.settings()
        arguments = self.run_options.arguments()
        policy = {name: arguments[name] for name in ("resend_uncertain", "retry_failed")}
        with read_requests(self.file, defaults=self.fields) as requests:
            try:
                async with (
                    gateway(self.gateway_options) as service,
                    KontextSession(service.api_key, base_url=service.base_url, settings=settings) as session,
                ):
                    plan = await made_plan(
                        requests, self.directory, session=session, url=arguments["journal"], **policy
                    )
            except NoUsableKey:  # it costs nothing to do without: prices are asked for with it
                plan = await made_plan(requests, self.directory, session=None, url=arguments["journal"], **policy)
        self._print_plan(plan, arguments["max_cost"])
        return ExitCode.DONE

    async def _attended(self, run: BulkRun, session: KontextSession) -> None:
        """Run with everything that reports listening."""
        with ExitStack() as listening:
            requests = listening.enter_context(read_requests(self.file, defaults=self.fields))
            listening.enter_context(shown_progress(session, self.output, self.total, lambda: _figures(run)))
            if self.output.options.verbose:
                listening.callback(session.subscribe(EventLines(self.output)))
            async with aclosing(run.outcomes(requests)) as outcomes:
                async for outcome in outcomes:
                    self._print(outcome)

    def _print(self, outcome: BulkOutcome) -> None:
        if outcome.skipped and outcome.ok:
            return
        self.output.result(
            Result(
                index=outcome.index,
                request=outcome.request,
                task_id=outcome.task_id,
                paths=outcome.files if outcome.ok else (),
                cost=outcome.cost,
                error=outcome.error,
            )
        )

    def _summarize(self, run: BulkRun, service: Gateway) -> BulkReport | None:
        try:
            report = run.report
        except KontextError:  # it did not begin
            return None
        self.output.note(_earlier(report))
        for each in report.uncertain[:LISTED]:
            self.output.warn(f"uncertain: request {each.index} (fingerprint {each.fingerprint[:12]}): {each.prompt}")
        if report.uncertain:
            self.output.warn(
                f"{len(report.uncertain)} uncertain: nobody knows whether they were accepted; --resend-uncertain "
                "submits them again, and may pay twice"
            )
        for task_id in report.unwritten:
            command = shlex.join(["kontext-async", "fetch", task_id, "--out", str(self.directory)])
            self.output.warn(f"paid for, and not in the journal: {command}")
        if report.stopped and not self._stopped:
            self.output.error(
                f"{self.total - report.total + report.left} requests were not submitted: {report.stopped}"
            )
        failed = sum(report.failed.values())
        done = report.finished + report.fetched + report.skipped
        counts = f"{done} done, {failed} failed, {report.doubted} uncertain"
        self.output.note(f"{counts}, {report.spent} USD spent, {report.seconds:.1f} s")
        if bill := service.bill():
            self.output.note(bill)
        if not report.complete:
            self.output.warn(f"to go on: {shlex.join(['kontext-async', *invocation()])}")
        return report

    def _code(self, report: BulkReport) -> ExitCode:
        """What may have cost money unseen comes first."""
        if report.doubted:
            return ExitCode.UNCERTAIN
        if isinstance(report.stopped, AuthenticationFailed | PermissionDenied):
            return ExitCode.KEY_OR_BALANCE
        return ExitCode.DONE if report.complete else ExitCode.FAILED

    def _print_plan(self, plan: Plan, limit: Decimal | None) -> None:
        for line in plan.lines():
            self.output.out(line)
        if limit is not None and plan.cost is not None and plan.spent + plan.cost > limit:
            self.output.warn(f"--max-cost {limit} would stop it: {plan.spent} USD are spent, {plan.cost} are to come")


def _figures(run: BulkRun) -> _Figures:
    progress = run.progress()
    return _Figures(
        completed=progress.done,
        failed=progress.failed,
        in_flight=progress.in_flight,
        spent=progress.spent,
        skipped=progress.skipped,
    )


def _earlier(report: BulkReport) -> str:
    """What this run did not have to pay for."""
    return (
        f"from earlier runs: {report.skipped} there, {report.fetched + report.orphans} fetched, "
        f"{report.saved} USD not paid again"
    )
