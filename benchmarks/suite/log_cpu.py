"""CPU of one status request while nobody listens to the logger, against the same code without a call for the logger.

``python -m benchmarks.suite.log_cpu [--full]``

The session's poll loop runs over 100 tasks that never end, as in `benchmarks.suite.status_cpu`. The candidates take
turns in one process. Two more show what it costs to listen: a handler at WARNING, which receives nothing here, and one
at DEBUG, which receives a record for each request and discards it.
"""

from __future__ import annotations

import inspect
import logging
import textwrap
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks.servers.schedule import Workload
from benchmarks.suite.status_cpu import Sizes, poll_with_session
from benchmarks.support.measure import compute_median, compute_median_ratio, measure_run, run_interleaved
from benchmarks.support.server_process import start_mock_gateway
from benchmarks.support.thresholds import check_threshold
from kontext_async.engine import poll_workers
from kontext_async.engine.poll_workers import PollWorkers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from benchmarks.support.measure import LoopWatch, Stopwatch

__all__ = ["describe", "measure"]

LOGGER = logging.getLogger("kontext_async")
CHECK = "LOGGER.isEnabledFor(DEBUG)"
USES = ("if began is not None:", "shown = ", "log_poll(")


def measure(quick: bool = True, sizes: Sizes | None = None) -> dict[str, Any]:  # noqa: FBT001, FBT002 # all have it
    """Measure microseconds of CPU per request with and without the logger, and the ratio of runs side by side."""
    sizes = sizes or Sizes(rounds=9 if quick else 51)
    kinds: dict[str, Callable[[], AbstractContextManager[None]]] = {
        "without the logger": remove_logger,
        "nobody listens": partial(listen, logging.NOTSET),
        "a handler at WARNING": partial(listen, logging.WARNING),
        "a handler at DEBUG": partial(listen, logging.DEBUG),
    }
    with start_mock_gateway() as server:
        server.reset(Workload(median=None, progress=0.42))
        candidates = {name: partial(_measure_one, kind, server.address, sizes) for name, kind in kinds.items()}
        runs = run_interleaved(candidates, sizes.rounds)
    without, silent, warning, debug = runs.values()
    what = "CPU of a status request while nobody listens to the logger, against no logger at all"
    return {
        "settings": {"at_once": sizes.at_once, "runs": sizes.rounds},
        "cpu_us_per_request": {name: compute_median(some) for name, some in runs.items()},
        "ratio_at_warning": compute_median_ratio(warning, without),
        "ratio_at_debug": compute_median_ratio(debug, without),
        "all_runs": runs,
        "thresholds": [check_threshold(what, compute_median_ratio(silent, without), 1.02)],
    }


def describe(figures: dict[str, Any]) -> list[str]:
    """Return the medians, and the ratios of those who listen."""
    medians = [f"{name}: {micro:g} us a request" for name, micro in figures["cpu_us_per_request"].items()]
    return [*medians, f"ratio at WARNING {figures['ratio_at_warning']}, at DEBUG {figures['ratio_at_debug']}"]


@contextmanager
def listen(level: int) -> Iterator[None]:
    """Listen to the logger at a level; `NOTSET` stands for a program that does not configure logging."""
    if level == logging.NOTSET:
        yield
        return
    handler = logging.NullHandler()
    LOGGER.addHandler(handler)
    LOGGER.setLevel(level)
    try:
        yield
    finally:
        LOGGER.setLevel(logging.NOTSET)
        LOGGER.removeHandler(handler)


@contextmanager
def remove_logger() -> Iterator[None]:
    """Replace the worker by one whose source has no line for the logger."""
    work, read = PollWorkers._work, PollWorkers._read  # noqa: SLF001 # their sources are edited
    PollWorkers._work = _without(work, {CHECK: "began = None"})  # type: ignore[method-assign] # noqa: SLF001 # put back below
    PollWorkers._read = _without(read, dict.fromkeys(USES))  # type: ignore[method-assign] # noqa: SLF001 # as above
    try:
        yield
    finally:
        PollWorkers._work, PollWorkers._read = work, read  # type: ignore[method-assign] # noqa: SLF001 # as above


def _without(function: Callable[..., Any], places: Mapping[str, str | None]) -> Any:
    """Return a function whose lines that have a text are replaced, or, with None, are missing."""
    lines = textwrap.dedent(inspect.getsource(function)).splitlines()
    for text, replacement in places.items():
        (place,) = (number for number, line in enumerate(lines) if text in line)
        indent = lines[place][: len(lines[place]) - len(lines[place].lstrip())]
        lines[place : place + 1] = [] if replacement is None else [indent + replacement]
    namespace: dict[str, Any] = {}
    exec("\n".join(lines), poll_workers.__dict__, namespace)  # noqa: S102 # our own source
    return namespace[function.__name__]


def _measure_one(kind: Callable[[], AbstractContextManager[None]], address: str, sizes: Sizes) -> float:
    def work(stopwatch: Stopwatch, _: LoopWatch) -> Any:
        return poll_with_session(stopwatch, address, sizes)

    with kind():
        measured = measure_run(work)
    return measured.cpu * 1e6 / max(1, int(measured.value))


if __name__ == "__main__":
    from benchmarks.runner import run_alone

    run_alone("log_cpu")
