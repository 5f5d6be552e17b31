"""What the server knows: tasks that take the planned time, and the account of everything that was asked of them.

No I/O in here.
"""

from __future__ import annotations

import json
import math
import time
from typing import TYPE_CHECKING, Any

from benchmarks.dialects import DIALECTS, PROGRESS_PLACE, Dialect, http_answer
from benchmarks.schedule import Plan

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Gateway"]

UNKNOWN = http_answer(b'{"error": "not found"}', "404 Not Found")


class _Task:
    """One task, with the answer that is ready for it."""

    __slots__ = ("answer", "created", "dialect", "ends", "fields", "seen")

    def __init__(self, dialect: Dialect, fields: dict[bytes, bytes], now: float, seconds: float) -> None:
        self.dialect = dialect
        self.fields = fields
        self.created = now
        self.ends = now + seconds
        self.seen: float | None = None
        self.answer = dialect.pending % fields


class Gateway:
    """The tasks of a run, and the counts."""

    def __init__(self, base: str, clock: Callable[[], float] = time.perf_counter) -> None:
        self._base = base
        self._clock = clock
        self.open = 0
        self.reset(Plan())

    def reset(self, plan: Plan) -> None:
        """Begin anew."""
        self._times = plan.service_times()
        self._linear = plan.linear
        progress = PROGRESS_PLACE if plan.linear else plan.progress
        self._dialects = {path: make(self._base, progress) for path, make in DIALECTS.items()}
        self._tasks: dict[bytes, _Task] = {}
        self.creates = self.statuses = self.results = self.connections = self.unknown = 0

    def create(self, path: bytes) -> bytes:
        """The answer to a POST."""
        dialect = next((dialect for start, dialect in self._dialects.items() if path.startswith(start, 1)), None)
        if dialect is None:
            self.unknown += 1
            return UNKNOWN
        self.creates += 1
        fields = {b"id": b"%010d" % self.creates, b"when": b"%d" % time.time(), b"progress": b"0.0000"}
        self._tasks[fields[b"id"]] = _Task(dialect, fields, self._clock(), next(self._times))
        return dialect.created % fields

    def ask(self, path: bytes) -> bytes:
        """The answer to a GET: about a task, or its result."""
        is_status = path.endswith(b"/status")
        place = path[: -len(b"/status")] if is_status else path
        task = self._tasks.get(place[-10:])
        if task is None:
            self.unknown += 1
            return UNKNOWN
        if task.seen is not None and not is_status:
            self.results += 1
            return task.dialect.result % task.fields
        self.statuses += 1
        if task.seen is None:
            self._look_at(task, self._clock())
        return task.answer

    def _look_at(self, task: _Task, now: float) -> None:
        if now >= task.ends:
            task.seen = now
            task.answer = task.dialect.finished % task.fields
        elif self._linear:
            task.fields[b"progress"] = b"%.4f" % ((now - task.created) / (task.ends - task.created))
            task.answer = task.dialect.pending % task.fields

    def counts(self) -> dict[str, float]:
        """What was asked so far, and the CPU of this process."""
        names = ("creates", "statuses", "results", "connections", "open", "unknown")
        return {**{name: getattr(self, name) for name in names}, "cpu": time.process_time()}

    def control(self, path: bytes, body: bytes) -> bytes:
        """The answer to whoever conducts the measurement."""
        if path == b"/_reset":
            self.reset(Plan(**json.loads(body)))
        answer: dict[str, Any] = dict(self.counts())
        if path == b"/_report":
            answer["tasks"] = [(t.created, t.ends, t.seen) for t in self._tasks.values() if t.ends < math.inf]
        return http_answer(json.dumps(answer).encode())
