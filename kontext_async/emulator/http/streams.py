"""Server-sent events: the progress of a task. Implements "Streams" of the protocol page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from aiohttp import web

from kontext_async.emulator.fault_kinds import FaultKind
from kontext_async.emulator.http.responder import disconnect
from kontext_async.emulator.task_json import (
    STREAM_FRAMES,
    build_frame,
    build_output,
    build_task_error,
    compute_frame_time,
)
from kontext_async.emulator.world import TaskPhase

if TYPE_CHECKING:
    from kontext_async.emulator.faults import Fault
    from kontext_async.emulator.http.state import GatewayState
    from kontext_async.emulator.task_json import Json
    from kontext_async.emulator.world import Task

CLOCK_CHECK_INTERVAL = 0.05
"""Seconds at most between two checks of the clock, which tests can advance by hand."""

KEEPALIVE = b": keepalive\n\n"


def encode_event(name: str, value: Json) -> bytes:
    """Encode one server-sent event."""
    return f"event: {name}\ndata: {json.dumps(value)}\n\n".encode()


def collect_due_frames(state: GatewayState, task: Task, cursor: int, now: float) -> list[Json]:
    """Return the due `output` frames after `cursor`; the last frame of a completed task has its image."""
    due = [
        build_frame(task, number)
        for number in range(cursor + 1, STREAM_FRAMES + 1)
        if now >= min(compute_frame_time(task, number), task.finish_at)
    ]
    if task.phase_at(now) is TaskPhase.COMPLETED and cursor <= STREAM_FRAMES:
        due.append(build_frame(task, STREAM_FRAMES + 1) | {"output": build_output(task, state.create_url)})
    return due


def encode_last_event(state: GatewayState, task: Task, now: float) -> bytes | None:
    """Encode the event that ends the stream; None while the task is in progress."""
    phase = task.phase_at(now)
    if phase is TaskPhase.IN_PROGRESS:
        return None
    if phase is TaskPhase.COMPLETED:
        return encode_event("done", state.describe_task(task))
    return encode_event("error", {"id": task.id, "status": phase.value, "error": build_task_error(task)})


async def stream_task(
    state: GatewayState, request: web.Request, task: Task, *, cursor: int = 0, fault: Fault | None = None
) -> web.StreamResponse:
    """Stream a task to its end, beginning after `cursor`.

    Raises:
        ClientDisconnected: The fault cut the stream.
    """
    headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    await response.write(KEEPALIVE)
    cut = fault is not None and fault.kind is FaultKind.CUT_HALFWAY
    last_write_at = state.clock()
    while True:
        now = state.clock()
        for frame in collect_due_frames(state, task, cursor, now):
            await response.write(encode_event("output", frame))
            cursor, last_write_at = frame["cursor"], now
            if cut:
                disconnect(request)
        last = encode_last_event(state, task, now)
        if last is not None:
            if cut:
                disconnect(request)
            await response.write(last)
            return response
        if now - last_write_at >= state.stream_keepalive:
            await response.write(KEEPALIVE)
            last_write_at = now
        await state.pause(CLOCK_CHECK_INTERVAL)


async def wait_for_end(state: GatewayState, task: Task) -> bool:
    """Wait for a task as long as `/sync` does; return False when that time ended first."""
    start = now = state.clock()
    while task.phase_at(now) is TaskPhase.IN_PROGRESS:
        left = min(task.finish_at - now, start + state.sync_wait - now)
        if left <= 0:
            return False
        await state.pause(min(left, CLOCK_CHECK_INTERVAL))
        now = state.clock()
    return True
