"""A durable run on a full disk, and on a read-only one: is anything billed and lost?

``python -m benchmarks.soak.bulk_disk`` mounts small temporary file systems, so it must run as root on Linux.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.support.checks import print_checks
from kontext_async import KontextError, KontextSession
from kontext_async.bulk import BulkRun
from kontext_async.emulator import Emulator
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUESTS = [f"fox {number} {'x' * 300}" for number in range(1500)]


def mount(*arguments: str) -> None:
    """Call ``mount``."""
    subprocess.run(["mount", *arguments], check=True)  # noqa: S607 # the system's


@contextmanager
def mount_small_disk(size: str) -> Iterator[Path]:
    """Mount a file system of this size in memory."""
    with tempfile.TemporaryDirectory() as name:
        mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", name)
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", name], check=True)  # noqa: S607 # the system's


async def execute(emulator: Emulator, directory: Path) -> tuple[BulkRun, KontextError | None]:
    """Run all requests in a directory; return the run, and the error that stopped it."""
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=FAST) as session:
        run = BulkRun(session, directory)
        try:
            await run.execute(REQUESTS)
        except KontextError as error:
            print(f"{type(error).__name__}: {error}")
            return run, error
        return run, run.report.stopped


async def run_checks() -> dict[str, bool]:
    """Run on a full disk, a larger one, a read-only one and one that is too small; return the checks."""
    checks: dict[str, bool] = {}
    async with Emulator(service_time=0.02, pixels=20_000) as emulator:
        with mount_small_disk("5m") as disk:
            first, error = await execute(emulator, disk / "out")
            billed = emulator.ledger.accepted
            checks["a full disk stops the run with an error"] = error is not None and billed < len(REQUESTS)
            checks["the journal has the ID of every billed task"] = first.report.unjournaled_task_ids == ()
            mount("-o", "remount,size=200m", str(disk))
            second, _ = await execute(emulator, disk / "out")
            report = second.report
            checks["once there is room, the run resumes and nothing is billed twice"] = (
                report.skipped + report.recovered == billed and report.complete and not emulator.ledger.billed_twice
            )
            mount("-o", "remount,ro", str(disk))
            _, error = await execute(emulator, disk / "out")
            checks["a read-only directory is refused"] = error is not None and emulator.ledger.accepted == len(REQUESTS)
        with mount_small_disk("1m") as disk:
            _, error = await execute(emulator, disk / "out")
            checks["a disk that is too small is refused before anything is billed"] = (
                error is not None and emulator.ledger.accepted == len(REQUESTS)
            )
    return checks


def main() -> int:
    """Run the command."""
    checks = asyncio.run(run_checks())
    return 0 if print_checks(checks) else 1


if __name__ == "__main__":
    sys.exit(main())
