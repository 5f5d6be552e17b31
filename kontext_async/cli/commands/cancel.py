"""The command ``kontext-async cancel``."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter

from kontext_async.cancellation import Cancellation, CancelOutcome
from kontext_async.cli.each_task import Report, report_each
from kontext_async.cli.exit_codes import ExitCode
from kontext_async.cli.options import GatewayOptions, OutputOptions  # noqa: TC001 # cyclopts resolves them

__all__ = ["cancel"]


async def cancel(
    references: Annotated[list[str], Parameter(name="REFERENCE", required=True)],
    /,
    *,
    gateway: GatewayOptions | None = None,
    output: OutputOptions | None = None,
) -> int:
    """Cancel tasks at the gateway.

    Args:
        references: The task IDs, or the references of the tasks as errors or other commands show them.
        gateway: The gateway to use.
        output: The output options.
    """
    return await report_each(references, lambda task: task.cancel(), REPORT, gateway, output)


def _judge(outcome: CancelOutcome) -> ExitCode:
    return ExitCode.DONE if outcome.cancellation is Cancellation.IN_TIME else ExitCode.FAILED


def _to_text(outcome: CancelOutcome) -> str:
    cost = f"{outcome.cost} USD" if outcome.cost is not None else "cost unknown"
    state = f", {outcome.status.state.value}" if outcome.status else ""
    return f"{outcome.task_id} {outcome.cancellation.value}{state}, {cost}"


def _to_json(outcome: CancelOutcome) -> dict[str, Any]:
    return {
        "task_id": outcome.task_id,
        "reference": outcome.reference,
        "cancellation": outcome.cancellation.value,
        "state": outcome.status.state.value if outcome.status else None,
        "cost": None if outcome.cost is None else str(outcome.cost),
        "may_be_charged": outcome.may_be_charged,
    }


REPORT = Report(to_text=_to_text, to_json=_to_json, unknown={"cancellation": None}, judge=_judge)
