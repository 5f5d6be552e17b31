"""A durable run that is killed again and again: is anything billed twice, lost, or damaged?

``python -m benchmarks.soak.bulk_kill [--prompts 2000] [--kills 25] [--cut 0.05] [--in-flight 48]``

The emulator is a process that keeps running. ``kontext-async bulk`` is another process: it is killed with SIGKILL at
random moments and started again. At the end, the emulator's ledger is compared with the store, and every image is
opened.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import define, field
from PIL import Image

from benchmarks.support.checks import print_checks
from benchmarks.support.server_process import start_emulator
from benchmarks.support.stores import Audit, read_store
from kontext_async.bulk.directory import JOURNAL
from kontext_async.store.steps import State

if TYPE_CHECKING:
    from collections.abc import Sequence

    from benchmarks.support.server_process import EmulatorClient

__all__ = ["Harness", "run_checks"]

START_SECONDS = 5.0
"""The longest that a process takes until it submits something. One that has nothing to submit is killed after it."""


@define
class Harness:
    """Runs the command and kills it.

    Attributes:
        gateway: The emulator.
        folder: The folder of the prompts and of the run.
        prompts: How many prompts there are.
        in_flight: Unfinished tasks at once.
        random: Draws the moments of the kills.
        options: Further options of the command.
        kills: When processes were killed, in Unix seconds.
    """

    gateway: EmulatorClient
    folder: Path
    prompts: int
    in_flight: int
    random: random.Random
    options: Sequence[str] = ()
    kills: list[float] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.file.write_text("".join(f"a fox, number {number}\n" for number in range(self.prompts)))

    @property
    def file(self) -> Path:
        """The file of prompts."""
        return self.folder / "prompts.txt"

    @property
    def out(self) -> Path:
        """The directory of the run."""
        return self.folder / "out"

    def start(self) -> subprocess.Popen[bytes]:
        """Start the command."""
        command = [sys.executable, "-m", "kontext_async.cli", "bulk", str(self.file), "--out", str(self.out)]
        options = ["--quiet", "--max-in-flight", str(self.in_flight), "--polls-per-second", "300"]
        with (self.folder / "stderr.txt").open("ab") as errors:
            return subprocess.Popen(
                [*command, *options, *self.options],
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env={**os.environ, **self.gateway.environment()},
            )

    def kill_at_random(self, longest: float) -> bool:
        """Start the command, and kill it some time after it submits; return True if it was still running."""
        before = self.gateway.accepted()
        with self.start() as process:
            deadline = time.monotonic() + START_SECONDS
            while self.gateway.accepted() == before and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
            try:
                process.wait(self.random.uniform(0.0, longest))
            except subprocess.TimeoutExpired:
                self.kills.append(time.time())
                process.kill()
                return True
        return False

    def finish(self, seconds: float) -> int:
        """Start the command, wait until it ends, and return its exit code."""
        with self.start() as process:
            return process.wait(seconds)


def is_complete_image(path: Path) -> bool:
    """Return True if the file is an image that can be decoded to its end."""
    try:
        with Image.open(path) as image:
            image.load()
    except OSError:
        return False
    return True


def run_checks(harness: Harness) -> dict[str, bool]:
    """Compare the ledger with the store in the directory, and open every file."""
    ledger = harness.gateway.ledger()
    audit = Audit.of(ledger, read_store(f"sqlite:///{harness.out / JOURNAL}"), harness.kills)
    store = audit.store
    prompts_by_id = {entry["task_id"]: entry["prompt"] for entry in audit.ledger}
    saved = [row for row in store.rows if row.state is State.SAVED]
    files = [name for row in saved for name, _ in row.files]
    lines = [json.loads(line) for line in (harness.out / "results.jsonl").read_text().splitlines()]
    unknown_files = sorted({path.name for path in harness.out.glob("*.jpg")} - set(files))
    print(f"states {dict(store.states)}; ledger: accepted {ledger['accepted']}, billed {ledger['billed']}")
    return {
        "every prompt is saved or uncertain": len(saved) + len(store.uncertain) == len(store.rows) == harness.prompts,
        **audit.checks(),
        "the store has the ledger's task IDs for the same prompts": all(
            prompts_by_id.get(row.task_id) == row.prompt for row in store.rows if row.task_id
        ),
        "every file is a complete image": all(is_complete_image(harness.out / name) for name in files)
        and len(files) == len(saved),
        f"no other image is in the directory: {unknown_files[:3]}": unknown_files == [],
        "results.jsonl has one line for each saved request": Counter(line["index"] for line in lines)
        == Counter(row.position for row in saved),
    }


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak.bulk_kill", description="Kill a durable run again and again, and check it."
    )
    parser.add_argument("--prompts", type=int, default=2000, help="prompts of the run (default: %(default)s)")
    parser.add_argument("--kills", type=int, default=25, help="kills before the run may end (default: %(default)s)")
    parser.add_argument("--cut", type=float, default=0.0, help="share of accepted create requests that get no response")
    parser.add_argument("--in-flight", type=int, default=48, help="unfinished tasks at once (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the moments of the kills")
    options = parser.parse_args()
    print(f"seed {options.seed}")
    faults = ["--fault", f"cut-after-accept={options.cut}"] if options.cut else []
    with (
        tempfile.TemporaryDirectory() as folder,
        start_emulator("--service-time", "lognormal:0.5,0.5", "--pixels", "4096", *faults) as gateway,
    ):
        moments = random.Random(options.seed)
        harness = Harness(gateway, Path(folder), options.prompts, options.in_flight, moments)
        kills = 0
        began = time.perf_counter()
        for _ in range(options.kills):
            kills += harness.kill_at_random(1.5)
        code = harness.finish(600)
        print(f"{kills} kills, then exit code {code}, in {time.perf_counter() - began:.0f} s")
        checks = run_checks(harness)
    return 0 if print_checks(checks) and kills == options.kills else 1


if __name__ == "__main__":
    sys.exit(main())
