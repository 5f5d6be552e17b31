"""A run of `generate` or `bulk`, from the opening of the session to the summary."""

from __future__ import annotations

import shlex
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from kontext_async.cli.delivery import Delivery, Feed
from kontext_async.cli.gateway import gateway
from kontext_async.cli.listeners import EventLines, Lost, Paid
from kontext_async.cli.progress import shown_progress
from kontext_async.errors import ConfigurationError
from kontext_async.session import KontextSession

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from kontext_async.cli.exits import ExitCode
    from kontext_async.cli.gateway import Gateway
    from kontext_async.cli.options import GatewayOptions, RunOptions
    from kontext_async.cli.output import Output
    from kontext_async.models import Generation, KontextRequest, Outcome

__all__ = ["make_directory", "run_requests", "tell_unfinished"]


async def run_requests(
    requests: Iterable[KontextRequest],
    *,
    total: int,
    directory: Path,
    name: Callable[[Outcome, Generation], str],
    options: RunOptions,
    output: Output,
) -> ExitCode:
    """Run requests, save their pictures, and say what became of them.

    Args:
        requests: What is run.
        total: How many they are.
        directory: Where the pictures go; it is made when it is missing.
        name: A picture's name without an extension.
        options: Where they are run.
        output: Where that is said.

    Raises:
        ConfigurationError: An option is wrong, there is no key, or the directory cannot be made.
        KontextError: The requests cannot be read on, or the session has ended.
    """
    settings = options.settings()
    async with gateway(options) as service:
        make_directory(directory)
        session = KontextSession(service.api_key, base_url=service.base_url, settings=settings)
        paid = Paid()
        delivery = Delivery(session, output, paid, directory, name)
        feed = Feed(requests)
        began = time.monotonic()
        session.subscribe(paid)
        try:
            await _attended(delivery, feed, total)
        finally:
            _summarize(delivery, time.monotonic() - began, service)
            tell_unfinished(paid, options, directory, output)
        if refused := delivery.totals.refused:
            output.error(f"{total - feed.given} requests were not submitted: {refused}")
        return delivery.totals.exit_code


async def _attended(delivery: Delivery, feed: Feed, total: int) -> None:
    """Run with everything that reports listening."""
    session, output = delivery.session, delivery.output
    with ExitStack() as listening:
        listening.enter_context(shown_progress(session, output, total))
        if output.options.verbose:
            listening.callback(session.subscribe(EventLines(output)))
        async with session:
            try:
                await delivery.run(feed)
            except BaseException:
                output.note("stopping: nothing more is submitted")
                session.subscribe(Lost(output))  # from here on these have no outcome
                raise


def _summarize(delivery: Delivery, seconds: float, service: Gateway) -> None:
    totals = delivery.totals
    spent = delivery.session.statistics().spent
    delivery.output.note(
        f"{totals.done} done, {totals.failed} failed, {totals.uncertain} uncertain, {spent} USD spent, {seconds:.1f} s"
    )
    if bill := service.bill():
        delivery.output.note(bill)


def tell_unfinished(paid: Paid, options: GatewayOptions, target: Path, output: Output) -> None:
    """Say which tasks were accepted and have no pictures here, and how to take them up."""
    if not paid.ids:
        return
    if getattr(options, "emulator", False):
        output.warn(f"not saved, and gone with their emulator: {', '.join(paid.ids)}")
        return
    output.warn(f"{len(paid.ids)} accepted, paid for, and not saved here. To take them up:")
    address = ["--base-url", options.base_url] if options.base_url else []
    for task_id in paid.ids:
        output.warn(shlex.join(["kontext-async", "fetch", task_id, "--out", str(target), *address]))


def make_directory(directory: Path) -> None:
    """Make a directory for pictures before anything is paid.

    Raises:
        ConfigurationError: It cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigurationError(f"--out {directory} cannot be made: {error.strerror or error}") from None
