"""``kontext-async report``."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 # cyclopts resolves it
from typing import Annotated

from cyclopts import Parameter

from kontext_async.cli.exits import ExitCode
from kontext_async.cli.options import OutputOptions
from kontext_async.cli.output import Output

__all__ = ["report"]


async def report(
    directory: Annotated[Path, Parameter(name="DIR")],
    /,
    *,
    journal: Annotated[str | None, Parameter(metavar="URL")] = None,
    output: OutputOptions | None = None,
) -> int:
    """Write results.jsonl and index.html of a run anew, from its journal.

    Args:
        directory: The run's directory.
        journal: The journal's database, as a URL; without it the file in DIR.
        output: What is printed.
    """
    from kontext_async.bulk import check_extra  # noqa: PLC0415 # these take their time

    check_extra()
    from kontext_async.bulk.rebuilding import rebuild  # noqa: PLC0415

    printer = Output(output or OutputOptions())
    rebuilt = await rebuild(directory, url=journal)
    printer.out(str(directory / "index.html"))
    states = ", ".join(f"{count} {state}" for state, count in sorted(rebuilt.states.items()))
    printer.note(f"{states or 'nothing'}; {rebuilt.spent} USD spent, {rebuilt.lines} results")
    return ExitCode.DONE
