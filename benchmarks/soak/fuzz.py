"""Fuzzing of everything that reads foreign bytes, for a bounded time.

``python -m benchmarks.soak.fuzz --seconds 60 --target all`` gives each target its share of the time, under atheris, and
sends 10,000 random requests to the emulator. Each finding is printed once, with the input that causes it.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import traceback
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from attrs import frozen

from benchmarks.soak import junk

NAMES = (
    "responses",
    "gateways",
    "references",
    "estimates",
    "refusals",
    "image_heads",
    "stranger_requests",
    "prompt_files",
    "journals",
)
EMULATOR = "emulator"
NOT_INSTALLED = "atheris is not installed, so nothing was fuzzed: pip install 'kontext_async[benchmarks]' (Linux only)"
INPUT_SECONDS = 10
"""Seconds for one input, after which the target hangs."""

MEMORY_MEGABYTES = 2048
MAX_LENGTH = 8192
WORDS = (*(f"KEY{number}" for number in range(6)), "status", "completed", "output", "content", "url", "error", "cost")


@frozen(kw_only=True)
class FuzzResult:
    """What came of fuzzing one target."""

    target: str
    runs: int
    findings: list[dict[str, Any]]
    crash: str = ""

    @property
    def passed(self) -> bool:
        return not self.findings and not self.crash


def fuzz(target: str, seconds: int) -> FuzzResult:
    """Fuzz one target in a process of its own, since libFuzzer ends its process."""
    with tempfile.TemporaryDirectory(prefix="kontext-fuzz-") as name:
        folder = Path(name)
        command = [sys.executable, "-m", "benchmarks.soak.fuzz", "--seconds", str(seconds), "--target", target]
        environment = os.environ | {"TMPDIR": name}  # so that nothing remains of a process that the fuzzer ends
        done = subprocess.run(
            [*command, "--folder", name],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            env=environment,
        )
        found = folder / "findings.jsonl"
        findings = [json.loads(line) for line in found.read_text().splitlines()] if found.exists() else []
    runs = re.findall(r"^(?:Done |#)(\d+)", done.stderr, re.MULTILINE)
    crash = "" if done.returncode == 0 else f"exit code {done.returncode}: {done.stderr[-1500:]}"
    return FuzzResult(target=target, runs=int(runs[-1]) if runs else 0, findings=findings, crash=crash)


def run_target(name: str, seconds: int, folder: Path) -> None:
    """Fuzz one target in this process, and end it. Findings go to a file, since the fuzzer continues."""
    atheris: Any = import_module("atheris")  # an extra
    with atheris.instrument_imports(include=["kontext_async"]):
        from benchmarks.soak.fuzz_targets import TARGETS  # noqa: PLC0415 # instrumented
    target = TARGETS[name]
    seen: set[str] = set()

    def test_input(data: bytes) -> None:
        try:
            target.run(data)
        except Exception as error:  # noqa: BLE001 # whatever comes out is a finding
            place = describe_place(error)
            if place not in seen:
                seen.add(place)
                finding = {"place": place, "error": repr(error)[:500], "input": repr(data[:2000])}
                with (folder / "findings.jsonl").open("a") as file:
                    file.write(json.dumps(finding) + "\n")

    corpus = folder / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(target.seeds):
        (corpus / f"seed-{number}").write_bytes(seed)
    dictionary = folder / "words.txt"
    dictionary.write_text("".join(f'"{word}"\n' for word in WORDS))
    options = {
        "max_total_time": seconds,
        "timeout": INPUT_SECONDS,
        "rss_limit_mb": MEMORY_MEGABYTES,
        "max_len": MAX_LENGTH,
        "dict": dictionary,
        "artifact_prefix": f"{folder}/",
    }
    atheris.Setup([sys.argv[0], *(f"-{name}={value}" for name, value in options.items()), str(corpus)], test_input)
    atheris.Fuzz()


def describe_place(error: BaseException) -> str:
    """Return the class of an error, and the last line of the package that it passed."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "kontext_async/" in frame.filename or "benchmarks/" in frame.filename]
    last = (ours or list(frames))[-1]
    return f"{type(error).__name__} at {last.filename.rpartition('/kontext_async/')[2]}:{last.lineno}"


def describe_result(result: FuzzResult) -> list[str]:
    """Return the lines about a result."""
    lines = [f"{'ok  ' if result.passed else 'FAIL'} {result.target}: {result.runs:,} inputs"]
    for finding in result.findings:
        lines += [f"     {finding['place']}: {finding['error']}", f"       input {finding['input'][:500]}"]
    return lines + ([f"     {result.crash}"] if result.crash else [])


def main(arguments: list[str] | None = None) -> int:
    """Run the command. Its exit code is 0 without a finding, 1 with one, and 2 without atheris."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=int, default=60, help="seconds for all targets together")
    parser.add_argument("--target", choices=[*NAMES, EMULATOR, "all"], default="all")
    parser.add_argument("--requests", type=int, default=10_000, help="random requests to the emulator")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.folder is not None:
        run_target(options.target, options.seconds, options.folder)
        return 0
    names = NAMES if options.target == "all" else (options.target,)
    code = 0
    if options.target in {EMULATOR, "all"}:
        code = junk.main(["--requests", str(options.requests)])
    if options.target == EMULATOR:
        return code
    if find_spec("atheris") is None:
        print(NOT_INSTALLED)
        return 2
    for name in names:
        result = fuzz(name, max(1, options.seconds // len(names)))
        print("\n".join(describe_result(result)), flush=True)
        code = code or (0 if result.passed else 1)
    return code


if __name__ == "__main__":
    sys.exit(main())
