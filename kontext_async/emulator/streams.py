"""Server-sent events: a task as it goes on. Implements "Streams" of the protocol page."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from aiohttp import web

from kontext_async.emulator.answers import STREAM_FRAMES, frame, frame_time, output, task_error
from kontext_async.emulator.delivery import hang_up
from kontext_async.emulator.kinds import FaultKind
from kontext_async.emulator.world import State

if TYPE_CHECKING:
    from kontext_async.emulator.answers import Json
    from kontext_async.emulator.context import Context
    from kontext_async.emulator.faults import Fault
    from kontext_async.emulator.world import Task

_TICK = 0.05
"""Seconds at most between two looks at the clock, which tests may turn by hand."""

KEEPALIVE = b": keepalive\n\n"


def event(name: str, value: Json) -> bytes:
    """One server-sent event."""
    return f"event: {name}\ndata: {json.dumps(value)}\n\n".encode()


def due_frames(context: Context, task: Task, cursor: int, now: float) -> list[Json]:
    """The `output` frames after `cursor` that are due; the last one of a completed task has its picture."""
    due = [
        frame(task, number)
        for number in range(cursor + 1, STREAM_FRAMES + 1)
        if now >= min(frame_time(task, number), task.finish_at)
    ]
    if task.state(now) is State.COMPLETED and cursor <= STREAM_FRAMES:
        due.append(frame(task, STREAM_FRAMES + 1) | {"output": output(task, context.link)})
    return due


def last_event(context: Context, task: Task, now: float) -> bytes | None:
    """The event that ends the stream, once the task has ended."""
    state = task.state(now)
    if state is State.IN_PROGRESS:
        return None
    if state is State.COMPLETED:
        return event("done", context.task_answer(task))
    return event("error", {"id": task.id, "status": state.value, "error": task_error(task)})


async def stream_task(
    context: Context, request: web.Request, task: Task, *, cursor: int = 0, fault: Fault | None = None
) -> web.StreamResponse:
    """Stream a task to its end, from after `cursor` on.

    Raises:
        HungUpError: The fault cut the stream.
    """
    headers = {"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
    response = web.StreamResponse(headers=headers)
    await response.prepare(request)
    await response.write(KEEPALIVE)
    cut = fault is not None and fault.kind is FaultKind.CUT_HALFWAY
    spoke_at = context.clock()
    while True:
        now = context.clock()
        for due in due_frames(context, task, cursor, now):
            await response.write(event("output", due))
            cursor, spoke_at = due["cursor"], now
            if cut:
                hang_up(request)
        last = last_event(context, task, now)
        if last is not None:
            if cut:
                hang_up(request)
            await response.write(last)
            return response
        if now - spoke_at >= context.stream_keepalive:
            await response.write(KEEPALIVE)
            spoke_at = now
        await context.pause(_TICK)


async def wait_for_end(context: Context, task: Task) -> bool:
    """Wait for a task as long as `/sync` does; False when its patience ended first."""
    start = now = context.clock()
    while task.state(now) is State.IN_PROGRESS:
        left = min(task.finish_at - now, start + context.sync_wait - now)
        if left <= 0:
            return False
        await context.pause(min(left, _TICK))
        now = context.clock()
    return True
