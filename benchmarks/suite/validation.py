"""Time and memory of the validation of a prompt file, by its number of lines.

``python -m benchmarks.suite.validation [--full]``

The files have a prompt, three fields and an ignored column. Memory is the peak of the resident memory above that before
the validation, whose first run is not counted. The time is CPU per line; it grows with the file where the lines of its
second half cost more than those of the first: each half by the quickest tenth of its blocks of 64 KiB, because other
programs disturb the rest. Up to 20,000 lines, or 1,000,000 with ``--full``.
"""

from __future__ import annotations

import csv
import io
import json
import tempfile
import time
from array import array
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import frozen

from benchmarks.support.peak_memory import PeakMemory
from benchmarks.support.thresholds import check_threshold
from kontext_async.bulk.prompt_files import validate_requests

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Sizes", "describe", "measure"]

SUFFIXES = (".csv", ".jsonl", ".txt")
FEW_BLOCKS = 4


@frozen(kw_only=True)
class Sizes:
    """The sizes of the measurement.

    Attributes:
        lines: The numbers of lines, in rising order.
    """

    lines: tuple[int, ...]


def measure(quick: bool = True, sizes: Sizes | None = None) -> dict[str, Any]:  # noqa: FBT001, FBT002 # all have it
    """Measure microseconds a line and MiB for each format and size."""
    sizes = sizes or Sizes(lines=(5_000, 20_000) if quick else (250_000, 500_000, 1_000_000))
    with tempfile.TemporaryDirectory() as name:
        measure_one(Path(name), SUFFIXES[0], sizes.lines[0])  # what is loaded once
        cases = {
            f"{suffix}, {count:,} lines": measure_one(Path(name), suffix, count)
            for suffix in SUFFIXES
            for count in sizes.lines
        }
    last = sizes.lines[-1]
    growth = max(cases[f"{suffix}, {last:,} lines"]["growth"] for suffix in SUFFIXES)
    return {
        "settings": {"lines": sizes.lines},
        "cases": cases,
        "thresholds": [
            check_threshold("peak memory of a validation", max(each["mib"] for each in cases.values()), 4, "MiB"),
            check_threshold(f"CPU per line in the second half of {last:,} against the first", growth, 1.15),
        ],
    }


def describe(figures: dict[str, Any]) -> list[str]:
    """Return a line for each file."""
    return [
        f"{name}: {case['seconds']} s, {case['us_per_line']} us of CPU a line, {case['mib']} MiB, "
        f"{case['growth']} in the second half, {case['reports']} reports"
        for name, case in figures["cases"].items()
    ]


def measure_one(folder: Path, suffix: str, count: int) -> dict[str, float]:
    """Validate a file, and return seconds, microseconds of CPU a line, its growth, MiB and the number of reports."""
    path = folder / f"prompts{suffix}"
    with path.open("w", encoding="utf-8", newline="") as file:
        file.writelines(line + "\n" for line in make_lines(suffix, count))
    places = array("d")  # a line's number and the CPU until then; a list would grow with the file
    memory = PeakMemory()
    with memory:
        began, cpu_began = time.perf_counter(), time.process_time()
        found = validate_requests(path, on_progress=lambda at: places.extend((at.line, time.process_time())))
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu_began
    assert found.requests == count
    return {
        "seconds": round(seconds, 2),
        "us_per_line": round(1e6 * cpu / count, 1),
        "mib": round(memory.megabytes, 2),
        "growth": compute_growth(places[::2], places[1::2]),
        "reports": len(places) // 2,
    }


def compute_growth(lines: Sequence[float], cpu: Sequence[float]) -> float:
    """Return the CPU per line in the second half of the blocks against the first half; 1 if there are few blocks."""
    blocks = [
        (later - earlier) / (last - first)
        for (first, last), (earlier, later) in zip(pairwise(lines), pairwise(cpu), strict=True)
    ]
    half = len(blocks) // 2
    if half < FEW_BLOCKS:
        return 1.0
    before, after = (sorted(each)[len(each) // 10] for each in (blocks[:half], blocks[half:]))
    return round(after / before, 2)


def make_lines(suffix: str, count: int) -> Iterator[str]:
    """Yield the lines of a file."""
    if suffix == ".csv":
        yield "prompt,seed,aspect_ratio,output_format,note"
    for number in range(count):
        prompt = f'a red fox, number {number}, in the "golden hour", detailed'
        if suffix == ".csv":
            yield _to_csv([prompt, str(number), "16:9", "png", f"row {number}"])
        elif suffix == ".jsonl":
            fields = {"prompt": prompt, "seed": number, "aspect_ratio": "16:9", "output_format": "png", "note": "row"}
            yield json.dumps(fields)
        else:
            yield prompt


def _to_csv(cells: list[str]) -> str:
    row = io.StringIO()
    csv.writer(row, lineterminator="").writerow(cells)
    return row.getvalue()


if __name__ == "__main__":
    from benchmarks.runner import run_alone

    run_alone("validation")
