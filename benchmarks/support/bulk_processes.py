"""Runs ``kontext-async bulk`` on a store in processes, for soaks that disturb it."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from attrs import frozen

from benchmarks.support.server_process import ROOT

if TYPE_CHECKING:
    from pathlib import Path

    from benchmarks.support.server_process import EmulatorClient
    from benchmarks.support.stores import StoreServer

__all__ = ["BulkProcesses"]


@frozen
class BulkProcesses:
    """Starts processes that share one run.

    Attributes:
        gateway: The emulator.
        store: The store.
        folder: The folder of the prompts, of the images and of the output.
        prompts: The number of prompts.
        in_flight: The most unfinished tasks of a process.
        run: The name of the run.
    """

    gateway: EmulatorClient
    store: StoreServer
    folder: Path
    prompts: int
    in_flight: int
    run: str = "soak"

    def __attrs_post_init__(self) -> None:
        self.file.write_text("".join(f"a fox, number {number}\n" for number in range(self.prompts)))

    @property
    def file(self) -> Path:
        """The file of prompts."""
        return self.folder / "prompts.txt"

    def out(self, number: int) -> Path:
        """Return the folder for the images of a worker."""
        return self.folder / f"out-{number}"

    def start(self, number: int = 0, *options: str) -> subprocess.Popen[bytes]:
        """Start the command, with the folder of that number."""
        with (self.folder / f"stderr-{number}.txt").open("ab") as errors:
            return subprocess.Popen(
                [
                    *(sys.executable, "-m", "benchmarks.soak.bulk_worker", "bulk", str(self.file), "--quiet"),
                    *("--out", str(self.out(number)), "--run", self.run),
                    *("--max-in-flight", str(self.in_flight), "--polls-per-second", "100", *options),
                ],
                cwd=ROOT,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env=self._environment(),
            )

    def _environment(self) -> dict[str, str]:
        """Return the environment of a process. It may keep its bytecode, as an installed package does."""
        own = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        return {**own, **self.gateway.environment(), **self.store.environment()}

    def last_errors(self, number: int = 0) -> str:
        """Return the end of what the command of that number wrote to its standard error."""
        with suppress(FileNotFoundError):
            return (self.folder / f"stderr-{number}.txt").read_text(errors="replace")[-500:]
        return ""
