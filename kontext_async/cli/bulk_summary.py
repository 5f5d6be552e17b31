"""Prints the plan and the report of a durable run: what happened, what it cost, and what to do next."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from kontext_async.cli.app import command_line
from kontext_async.cli.output import count_of

if TYPE_CHECKING:
    from decimal import Decimal
    from pathlib import Path

    from kontext_async.bulk import BulkReport
    from kontext_async.bulk.models import RunPlan
    from kontext_async.cli.output import Output
    from kontext_async.cli.session import Gateway

__all__ = ["print_plan", "print_report"]

MAX_LISTED = 20
"""Uncertain requests to list; the contact sheet shows all of them."""


def print_plan(plan: RunPlan, max_cost: Decimal | None, output: Output) -> None:
    """Print what a run would do, and a warning if the cost limit would stop it."""
    for line in plan.lines():
        output.out(line)
    if max_cost is not None and plan.cost and plan.spent + plan.cost > max_cost:
        output.warn(
            f"--max-cost {max_cost} would stop this run: {plan.spent} USD already spent, about {plan.cost} USD to come"
        )


def print_report(
    report: BulkReport, *, total: int, directory: Path, is_interrupted: bool, gateway: Gateway, output: Output
) -> None:
    """Print the report of a run.

    Args:
        report: The report.
        total: The number of requests in the prompt file.
        directory: The directory of the run.
        is_interrupted: True if the user stopped the run, who needs no reason why requests were not submitted.
        gateway: The gateway, whose ledger is printed if it is a private emulator.
        output: The output to print to.
    """
    recovered = report.recovered + report.orphans
    if report.skipped or recovered:
        output.note(
            f"from earlier runs: {report.skipped} already saved, {recovered} recovered, "
            f"{report.cost_avoided} USD not spent again"
        )
    _print_uncertain(report, output)
    for task_id in report.unjournaled_task_ids:
        command = shlex.join(["kontext-async", "fetch", task_id, "--out", str(directory), *gateway.arguments])
        output.warn(f"Billed, but not recorded. To fetch at no extra cost: {command}")
    if report.stopped and not is_interrupted:
        unsubmitted = count_of(total - report.total + report.remaining, "request")
        output.error(f"{unsubmitted} not submitted: {report.stopped}")
    done = report.completed + report.recovered + report.skipped
    output.note(
        f"{done} done, {sum(report.failed.values())} failed, {report.uncertain_in_input} uncertain, "
        f"{report.spent} USD spent, {report.seconds:.1f} s"
    )
    gateway.print_ledger(output)
    if not report.complete:
        output.warn(f"To resume: {command_line()}")


def _print_uncertain(report: BulkReport, output: Output) -> None:
    for each in report.uncertain[:MAX_LISTED]:
        output.warn(f"uncertain: request {each.index} (fingerprint {each.fingerprint[:12]}): {each.prompt}")
    if report.uncertain:
        pronoun = "it" if len(report.uncertain) == 1 else "them"
        output.warn(
            f"{count_of(len(report.uncertain), 'request')} uncertain: the gateway may have accepted and billed "
            f"{pronoun}. To resubmit, add --resend-uncertain; this may bill twice."
        )
