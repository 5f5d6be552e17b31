"""Sends a request about each of several tasks, a few at once, and prints the results."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import anyio
from attrs import frozen

from kontext_async.cli.exit_codes import ExitCode, exit_code_for
from kontext_async.cli.options import GatewayOptions, OutputOptions
from kontext_async.cli.output import Output, error_to_json, to_one_line
from kontext_async.cli.session import open_session
from kontext_async.cli.signals import run_with_signals
from kontext_async.errors import KontextError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from kontext_async.session import GenerationTask, KontextSession

__all__ = ["Report", "report_each"]

AT_ONCE = 16

T = TypeVar("T")


@frozen(kw_only=True)
class Report(Generic[T]):
    """The form in which the results of a request about tasks are printed.

    Attributes:
        to_text: Returns a result for people.
        to_json: Returns a result for machines, without its error.
        unknown: What machines get in place of a result that there is none of.
        judge: Returns the exit code for a result.
    """

    to_text: Callable[[T], str]
    to_json: Callable[[T], Mapping[str, Any]]
    unknown: Mapping[str, Any]
    judge: Callable[[T], ExitCode] = lambda _: ExitCode.DONE


async def _request_each(
    references: Sequence[str], request: Callable[[GenerationTask], Awaitable[T]], session: KontextSession
) -> list[tuple[str, T | KontextError]]:
    """Return each reference with what `request` returned for it, or with its error, in the order of the references."""
    results: dict[int, T | KontextError] = {}
    free = anyio.Semaphore(AT_ONCE)

    async def send(index: int, reference: str) -> None:
        async with free:
            try:
                results[index] = await request(session.attach(reference))
            except KontextError as error:
                results[index] = error

    async with anyio.create_task_group() as group:
        for index, reference in enumerate(references):
            group.start_soon(send, index, reference)
    return [(reference, results[index]) for index, reference in enumerate(references)]


async def report_each(
    references: Sequence[str],
    request: Callable[[GenerationTask], Awaitable[T]],
    report: Report[T],
    gateway: GatewayOptions | None,
    output: OutputOptions | None,
) -> int:
    """Send a request about each task, print the results, and return the exit code. A signal ends it.

    Args:
        references: The tasks.
        request: Sends the request about one task.
        report: The form of the results.
        gateway: The gateway to use; None for the one of the environment.
        output: The output options; None for the defaults.
    """
    reporting = _report_each(
        references, request, report, gateway or GatewayOptions(), Output(output or OutputOptions())
    )
    return await run_with_signals(reporting)


async def _report_each(
    references: Sequence[str],
    request: Callable[[GenerationTask], Awaitable[T]],
    report: Report[T],
    gateway: GatewayOptions,
    output: Output,
) -> ExitCode:
    code = ExitCode.DONE
    async with open_session(gateway, output) as session:
        for reference, result in await _request_each(references, request, session):
            if isinstance(result, KontextError):
                if output.options.json:
                    output.out(json.dumps({"task_id": reference, **report.unknown, "error": error_to_json(result)}))
                output.error(result)
                code = max(code, exit_code_for(result))
            else:
                text = (
                    json.dumps({**report.to_json(result), "error": None})
                    if output.options.json
                    else to_one_line(report.to_text(result))
                )
                output.out(text)
                code = max(code, report.judge(result))
    return code
