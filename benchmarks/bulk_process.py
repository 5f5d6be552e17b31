"""What the benchmarks of durable runs share: the emulator as a process of its own, and its ledger."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from attrs import frozen

from benchmarks.serving import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Gateway", "emulator_process"]


@frozen
class Gateway:
    """An emulator that runs.

    Attributes:
        address: Its base URL.
        key: What opens it.
    """

    address: str
    key: str = "emulator-key"

    def ledger(self) -> dict[str, Any]:
        """What it has accepted and billed."""
        with urllib.request.urlopen(f"{self.address}/_emulator/ledger", timeout=60) as answer:  # noqa: S310 # our own
            found: dict[str, Any] = json.load(answer)
        return found

    def environment(self) -> dict[str, str]:
        """What leads the command to it."""
        return {"KONTEXT_BASE_URL": self.address, "KONTEXT_API_KEY": self.key}


@contextmanager
def emulator_process(*options: str) -> Iterator[Gateway]:
    """An emulator, with the options of ``kontext-async emulator``."""
    command: Sequence[str] = [sys.executable, "-m", "kontext_async.cli", "emulator", "--quiet", *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT) as process:
        assert process.stdout is not None
        try:
            yield Gateway(process.stdout.readline().decode().strip())
        finally:
            process.terminate()
