"""A durable run through an outage in its middle: does anything fail, get lost, or get billed twice?

``python -m benchmarks.soak.bulk_outage [--prompts 500] [--gap 0.02] [--seconds 20] [--in-flight 500]``

A reverse proxy stands before the emulator. While the run is in its middle, the proxy refuses connections, or answers
502 to everything, or to create requests alone. At the end, the report is compared with the emulator's ledger.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define, evolve, field

from benchmarks.servers.proxy_front import Front, Mode, start_front
from benchmarks.support.checks import print_checks
from kontext_async import KontextSession, Limits, Settings
from kontext_async.bulk import BulkReport, BulkRun
from kontext_async.emulator import Emulator, ServiceTime
from kontext_async.events import Accepted, CircuitOpened, Failed, Submitting

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from kontext_async.events import Event

__all__ = ["OutageResult", "run_checks", "run_through_outage"]

KINDS = {"refused": Mode.REFUSE, "502": Mode.BAD_GATEWAY, "502-creates": Mode.BAD_CREATES}


@define
class OutageResult:
    """What a run through an outage did.

    Attributes:
        kind: What the proxy did.
        prompts: The number of requests.
        report: The report of the run.
        images: The images in its directory.
        accepted: The create requests that the emulator accepted.
        billed_twice: The requests that it billed more than once.
        lost_creates: The create requests that got a 502.
        on_wire: The create requests in flight when the outage began and when the circuit opened, together at most.
        openings: How often the circuit opened: each time after the first follows a trial.
    """

    kind: str
    prompts: int
    report: BulkReport
    images: int
    accepted: int
    billed_twice: int
    lost_creates: int
    on_wire: int
    openings: int


@define
class WireCounter:
    """Counts the create requests in flight, and what they were when the circuit opened."""

    uncertain_limit: int
    now: int = 0
    at_opening: int = 0
    openings: int = 0
    _sending: set[str] = field(factory=set)

    def __call__(self, event: Event) -> None:
        if isinstance(event, Submitting):
            self._sending.add(str(event.fingerprint))
        elif isinstance(event, Accepted | Failed):
            self._sending.discard(str(event.fingerprint))
        elif isinstance(event, CircuitOpened):
            self.openings += 1
            if self.openings == 1:  # the last of those that opened it is still counted
                self.at_opening = len(self._sending) + self.uncertain_limit


async def run_through_outage(
    kind: str,
    folder: Path,
    *,
    prompts: int,
    gap: float,
    seconds: float,
    settings: Settings,
    service_time: ServiceTime | float,
) -> OutageResult:
    """Run requests that come one after another, with an outage of some seconds after a third of them is accepted."""
    async with Emulator(service_time=service_time, pixels=256) as emulator, start_front(emulator.base_url) as front:
        counter = WireCounter(settings.outages.uncertain_limit)
        async with KontextSession(emulator.api_key, base_url=front.base_url, settings=settings) as session:
            session.subscribe(counter)
            run = BulkRun(session, folder)
            outage = asyncio.create_task(
                _break_down(front, KINDS[kind], seconds, lambda: emulator.ledger.accepted >= prompts // 3)
            )
            report = await run.execute(_come(prompts, gap))
            await outage
        return OutageResult(
            kind=kind,
            prompts=prompts,
            report=report,
            images=await asyncio.to_thread(lambda: len(list(folder.glob("*.jpg")))),
            accepted=emulator.ledger.accepted,
            billed_twice=len(emulator.ledger.billed_twice),
            lost_creates=front.lost_creates,
            on_wire=counter.at_opening,
            openings=counter.openings,
        )


async def _come(prompts: int, gap: float) -> AsyncIterator[str]:
    for number in range(prompts):
        await asyncio.sleep(gap)
        yield f"a fox, number {number}"


async def _break_down(front: Front, mode: Mode, seconds: float, is_time: Callable[[], bool]) -> None:
    while not is_time():  # noqa: ASYNC110 # the ledger has no event
        await asyncio.sleep(0.005)
    await front.set_mode(mode)
    await asyncio.sleep(seconds)
    await front.set_mode(Mode.FORWARD)


def run_checks(result: OutageResult) -> dict[str, bool]:
    """Return the checks of a run, and whether each passed."""
    report = result.report
    uncertain = report.uncertain_in_input
    checks = {
        "no request failed": report.failed == {},
        "no request was billed twice": result.billed_twice == 0,
        "every request has an image, or is uncertain": report.completed + uncertain == result.prompts
        and report.completed == result.images,
        "the run ended by itself": report.stopped is None and report.remaining == 0,
        "the circuit opened": result.openings > 0,
        "every uncertain request got a 502": uncertain == result.lost_creates,
    }
    if result.kind == "refused":
        return checks | {
            "no request is uncertain": uncertain == 0,
            "each was accepted": result.accepted == result.prompts,
        }
    trials = result.openings - 1
    return checks | {
        "at most those on the wire and one for each trial are uncertain": uncertain <= result.on_wire + trials
    }


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak.bulk_outage", description="Take a durable run through outages, and check it."
    )
    parser.add_argument("--prompts", type=int, default=500, help="prompts of each run (default: %(default)s)")
    parser.add_argument("--gap", type=float, default=0.02, help="seconds between two prompts (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the outage (default: %(default)s)")
    parser.add_argument("--in-flight", type=int, default=500, help="unfinished tasks at once (default: %(default)s)")
    parser.add_argument("--kind", choices=sorted(KINDS), action="append", help="the outage; all of them by default")
    options = parser.parse_args()
    settings = evolve(Settings(), limits=Limits(max_in_flight=options.in_flight))
    passed = True
    for kind in options.kind or KINDS:
        with tempfile.TemporaryDirectory() as folder:
            result = asyncio.run(
                run_through_outage(
                    kind,
                    Path(folder) / "out",
                    prompts=options.prompts,
                    gap=options.gap,
                    seconds=options.seconds,
                    settings=settings,
                    service_time=ServiceTime.lognormal(1.0, 0.5),
                )
            )
        report = result.report
        print(
            f"{kind}: {report.completed} saved, {report.uncertain_in_input} uncertain, failed {dict(report.failed)}, "
            f"{report.remaining} remaining in {report.seconds:.0f} s; {result.accepted} accepted, on the wire "
            f"{result.on_wire}, opened {result.openings} times"
        )
        passed &= print_checks(run_checks(result))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
