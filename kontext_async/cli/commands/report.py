"""The command ``kontext-async report``."""

from __future__ import annotations

from typing import Annotated

from cyclopts import Parameter

from kontext_async.bulk import check_extra
from kontext_async.cli.exit_codes import ExitCode
from kontext_async.cli.options import OutputOptions, StoreOptions
from kontext_async.cli.output import Output, count_of
from kontext_async.cli.values import LocalPath  # noqa: TC001 # cyclopts resolves it
from kontext_async.settings import StoreSettings

__all__ = ["report"]


async def report(
    directory: Annotated[LocalPath, Parameter(name="DIR")],
    /,
    *,
    store: StoreOptions | None = None,
    output: OutputOptions | None = None,
) -> int:
    """Regenerate the reports of a run.

    Args:
        directory: The directory of the run.
        store: The store of the run.
        output: The output options.
    """
    check_extra()
    from kontext_async.bulk.contact_sheet import regenerate_reports  # noqa: PLC0415 # it needs the extra

    options = store or StoreOptions()
    printer = Output(output or OutputOptions())
    regenerated = await regenerate_reports(directory, store=options.new_store(StoreSettings()), run=options.run)
    printer.out(str(directory / "index.html"))
    states = ", ".join(f"{count} {state}" for state, count in sorted(regenerated.states.items()))
    results = count_of(regenerated.lines, "result")
    printer.note(f"{states or 'no requests'}; {regenerated.spent} USD spent, {results}")
    return ExitCode.DONE
