"""The command ``kontext-async cancel``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from kontext_async.cancellation import Cancellation, CancelOutcome
from kontext_async.cli.each_task import request_each
from kontext_async.cli.exit_codes import ExitCode, exit_code_for
from kontext_async.cli.options import GatewayOptions, OutputOptions
from kontext_async.cli.output import Output, error_to_json, to_one_line
from kontext_async.cli.session import open_session
from kontext_async.cli.signals import run_with_signals
from kontext_async.errors import KontextError

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    return await run_with_signals(_cancel(references, gateway or GatewayOptions(), Output(output or OutputOptions())))


async def _cancel(references: Sequence[str], options: GatewayOptions, output: Output) -> int:
    code = ExitCode.DONE
    async with open_session(options, output) as session:

        async def cancel_one(reference: str) -> CancelOutcome:
            return await session.attach(reference).cancel()

        for reference, result in await request_each(references, cancel_one):
            _print(reference, result, output)
            if isinstance(result, KontextError):
                code = max(code, exit_code_for(result))
            elif result.cancellation is not Cancellation.IN_TIME:
                code = max(code, ExitCode.FAILED)
    return code


def _print(reference: str, result: CancelOutcome | KontextError, output: Output) -> None:
    if output.options.json:
        output.out(json.dumps(_to_json(reference, result)))
    elif not isinstance(result, KontextError):
        output.out(to_one_line(_to_text(result)))
    if isinstance(result, KontextError):
        output.error(result)


def _to_text(outcome: CancelOutcome) -> str:
    cost = f"{outcome.cost} USD" if outcome.cost is not None else "cost unknown"
    state = f", {outcome.status.state.value}" if outcome.status else ""
    return f"{outcome.task_id} {outcome.cancellation.value}{state}, {cost}"


def _to_json(reference: str, result: CancelOutcome | KontextError) -> dict[str, Any]:
    if isinstance(result, KontextError):
        return {"task_id": reference, "cancellation": None, "error": error_to_json(result)}
    return {
        "task_id": result.task_id,
        "reference": result.reference,
        "cancellation": result.cancellation.value,
        "state": result.status.state.value if result.status else None,
        "cost": None if result.cost is None else str(result.cost),
        "may_be_charged": result.may_be_charged,
        "error": None,
    }
