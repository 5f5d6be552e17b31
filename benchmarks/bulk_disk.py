"""A durable run on a disk that is full, and on one that is read-only: is anything paid for and lost?

``python -m benchmarks.bulk_disk`` mounts small temporary file systems, for which it must be run as root on Linux.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from kontext_async import KontextError, KontextSession
from kontext_async.bulk import BulkRun
from kontext_async.emulator import Emulator
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUESTS = [f"fox {number} {'x' * 300}" for number in range(1500)]


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True)  # noqa: S607 # the system's


@contextmanager
def small_disk(size: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", name)
        try:
            yield Path(name)
        finally:
            subprocess.run(["umount", name], check=True)  # noqa: S607 # the system's


async def attempt(emulator: Emulator, directory: Path) -> tuple[BulkRun, KontextError | None]:
    async with KontextSession(emulator.api_key, base_url=emulator.base_url, settings=FAST) as session:
        run = BulkRun(session, directory)
        try:
            await run.execute(REQUESTS)
        except KontextError as error:
            print(f"{type(error).__name__}: {error}")
            return run, error
        return run, run.report.stopped


async def full(checks: dict[str, bool]) -> None:
    async with Emulator(service_time=0.02, pixels=20_000) as emulator:
        with small_disk("5m") as disk:
            first, error = await attempt(emulator, disk / "out")
            paid = emulator.ledger.accepted
            checks["a full disk ends the run with an error"] = error is not None and paid < len(REQUESTS)
            checks["no id of what is paid for is lost"] = first.report.unwritten == ()
            mount("-o", "remount,size=200m", str(disk))
            second, _ = await attempt(emulator, disk / "out")
            report = second.report
            checks["with room, it goes on and pays nothing twice"] = (
                report.skipped + report.fetched == paid and report.complete and not emulator.ledger.billed_twice
            )
            mount("-o", "remount,ro", str(disk))
            _, error = await attempt(emulator, disk / "out")
            checks["a read-only directory is refused"] = error is not None and emulator.ledger.accepted == len(REQUESTS)
        with small_disk("1m") as disk:
            _, error = await attempt(emulator, disk / "out")
            checks["too small a disk is refused before anything is paid"] = (
                error is not None and emulator.ledger.accepted == len(REQUESTS)
            )


def main() -> int:
    checks: dict[str, bool] = {}
    asyncio.run(full(checks))
    for text, held in checks.items():
        print("ok  " if held else "FAIL", text)
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
