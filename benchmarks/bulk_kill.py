"""A durable run that is killed again and again: is anything paid twice, lost, or damaged?

``python -m benchmarks.bulk_kill [--prompts 2000] [--kills 25] [--cut 0.05] [--in-flight 48]``

The emulator is a process of its own, which goes on; ``kontext-async bulk`` is another, which is killed with SIGKILL at
random moments and started again. In the end, the emulator's ledger is compared with the journal, and every picture is
opened.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import define, field
from PIL import Image

from benchmarks.bulk_process import emulator_process

if TYPE_CHECKING:
    from benchmarks.bulk_process import Gateway

__all__ = ["Harness", "checks_of"]


@define
class Harness:
    """Runs the command and kills it.

    Attributes:
        gateway: The emulator.
        folder: Where the prompts and the run are.
        prompts: How many there are.
        in_flight: Tasks at once.
        chance: When it is killed.
        survival: Seconds that each killed process had.
    """

    gateway: Gateway
    folder: Path
    prompts: int
    in_flight: int
    chance: random.Random
    survival: list[float] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.file.write_text("".join(f"a fox, number {number}\n" for number in range(self.prompts)))

    @property
    def file(self) -> Path:
        return self.folder / "prompts.txt"

    @property
    def out(self) -> Path:
        return self.folder / "out"

    def start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "kontext_async.cli", "bulk", str(self.file), "--out", str(self.out)]
        options = ["--quiet", "--max-in-flight", str(self.in_flight), "--polls-per-second", "300"]
        with (self.folder / "stderr.txt").open("ab") as errors:
            return subprocess.Popen(
                [*command, *options],
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env={**os.environ, **self.gateway.environment()},
            )

    def kill_at_random(self, shortest: float, longest: float) -> bool:
        """Start it and kill it after some seconds; says whether it was still at work."""
        lifetime = self.chance.uniform(shortest, longest)
        with self.start() as process:
            try:
                process.wait(lifetime)
            except subprocess.TimeoutExpired:
                process.kill()
                self.survival.append(lifetime)
                return True
        return False

    def finish(self, seconds: float) -> int:
        """Start it, and let it come to its end; its exit code."""
        with self.start() as process:
            return process.wait(seconds)


def rows_of(out: Path) -> list[dict[str, Any]]:
    with closing(sqlite3.connect(out / "journal.sqlite")) as connection, connection:
        connection.row_factory = sqlite3.Row
        return [dict(row) for row in connection.execute("SELECT * FROM kontext_requests")]


def is_whole_picture(path: Path) -> bool:
    try:
        with Image.open(path) as picture:
            picture.load()
    except OSError:
        return False
    return True


def checks_of(harness: Harness, kills: int) -> dict[str, bool]:
    """Compare the ledger with the journal, and look at every file."""
    ledger = harness.gateway.ledger()
    rows = rows_of(harness.out)
    billed = Counter(entry["prompt"] for entry in ledger["entries"] if entry["task_id"])
    ids = {entry["task_id"]: entry["prompt"] for entry in ledger["entries"] if entry["task_id"]}
    states = Counter(row["state"] for row in rows)
    uncertain = {row["prompt"] for row in rows if row["state"] == "intent"}
    known = {row["task_id"] for row in rows if row["task_id"]}
    files = [name for row in rows for name, _ in json.loads(row["files"] or "[]")]
    lines = [json.loads(line) for line in (harness.out / "results.jsonl").read_text().splitlines()]
    left = sorted(path.name for path in harness.out.glob("*.jpg") if path.name not in files)
    print(f"states {dict(states)}; ledger: accepted {ledger['accepted']}, billed {ledger['billed']}")
    print(f"uncertain {len(uncertain)}, of which accepted {sum(billed[prompt] for prompt in uncertain)}")
    return {
        "no prompt was billed twice": max(billed.values()) == 1,
        "every prompt is finished or listed as uncertain": set(states) <= {"saved", "intent"}
        and len(rows) == harness.prompts,
        f"uncertain are at most {harness.in_flight} a kill, and those that were cut": len(uncertain)
        <= harness.in_flight * kills + sum(entry["reason"] == "cut-after-accept" for entry in ledger["entries"]),
        "whatever was accepted and is not in the journal is uncertain": all(
            prompt in uncertain for task, prompt in ids.items() if task not in known
        ),
        "the journal's ids are the ledger's, for the same prompts": all(
            ids.get(row["task_id"]) == row["prompt"] for row in rows if row["task_id"]
        ),
        "every file is a whole picture": all(is_whole_picture(harness.out / name) for name in files)
        and len(files) == states["saved"],
        "no other picture is there": left == [],
        "results.jsonl has a line for each that is saved": Counter(line["index"] for line in lines)
        == Counter(row["position"] for row in rows if row["state"] == "saved"),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="A durable run that is killed again and again.")
    parser.add_argument("--prompts", type=int, default=2000)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--cut", type=float, default=0.0)
    parser.add_argument("--in-flight", type=int, default=48)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    options = parser.parse_args()
    print(f"seed {options.seed}")
    faults = ["--fault", f"cut-after-accept={options.cut}"] if options.cut else []
    with (
        tempfile.TemporaryDirectory() as folder,
        emulator_process("--service-time", "lognormal:0.5,0.5", "--pixels", "4096", *faults) as gateway,
    ):
        chance = random.Random(options.seed)
        harness = Harness(gateway, Path(folder), options.prompts, options.in_flight, chance)
        kills = 0
        began = time.perf_counter()
        for _ in range(options.kills):
            kills += harness.kill_at_random(0.8, 2.6)
        code = harness.finish(600)
        print(f"{kills} kills, then exit code {code}, in {time.perf_counter() - began:.0f} s")
        checks = checks_of(harness, kills)
    for text, held in checks.items():
        print("ok  " if held else "FAIL", text)
    return 0 if all(checks.values()) and kills == options.kills else 1


if __name__ == "__main__":
    sys.exit(main())
