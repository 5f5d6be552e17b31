"""Webhooks: reports the end of a task to the address that its create request named. Implements "Webhooks"."""

from __future__ import annotations

import asyncio
import json
from http import HTTPStatus
from itertools import count
from typing import TYPE_CHECKING

import aiohttp

from kontext_async.emulator.bfl_json import SECRET, SIGNATURE, build_delivery, build_secret_headers
from kontext_async.emulator.fault_kinds import FaultKind, Operation
from kontext_async.emulator.http.request_body import is_loopback
from kontext_async.emulator.http.state import ShuttingDown
from kontext_async.emulator.http.streams import CLOCK_CHECK_INTERVAL
from kontext_async.emulator.world import TaskPhase

if TYPE_CHECKING:
    from kontext_async.emulator.faults import Fault
    from kontext_async.emulator.http.state import GatewayState
    from kontext_async.emulator.world import Task

REPEATS = (1.0, 5.0, 30.0)
"""Seconds of the clock after a delivery that was not taken, until it is sent again; then it is given up."""

RECEIVER_SECONDS = 30.0
WRONG = "not the secret"


class WebhookSender:
    """Sends the webhooks of one emulator, over the shared `state`. Only this machine gets any."""

    def __init__(self, state: GatewayState) -> None:
        self.state = state
        self._deliveries: set[asyncio.Task[None]] = set()
        self._numbers = count()

    def start(self, task: Task) -> None:
        """Begin to wait for the end of a task, if its create request named an address on this machine."""
        url = task.request.webhook_url
        if url is None or not is_loopback(url):
            return
        delivery = asyncio.get_running_loop().create_task(self._deliver(task, url))
        self._deliveries.add(delivery)
        delivery.add_done_callback(self._deliveries.discard)

    async def aclose(self) -> None:
        """Give up all deliveries."""
        remaining = tuple(self._deliveries)
        for delivery in remaining:
            delivery.cancel()
        if remaining:
            await asyncio.wait(remaining)

    async def _deliver(self, task: Task, url: str) -> None:
        try:
            while task.phase_at(self.state.clock()) is TaskPhase.IN_PROGRESS:
                await self.state.pause(CLOCK_CHECK_INTERVAL)
            fault = self.state.draw_fault(Operation.WEBHOOK)
            if fault is not None and fault.kind is FaultKind.WEBHOOK_LOST:
                return
            if fault is not None and fault.kind is FaultKind.WEBHOOK_LATE:
                await self._wait(fault.seconds or 0.0)
            await self._send_until_taken(task, url, fault)
            if fault is not None and fault.kind is FaultKind.WEBHOOK_TWICE:
                await self._send_until_taken(task, url, None)
        except ShuttingDown:
            return

    async def _send_until_taken(self, task: Task, url: str, fault: Fault | None) -> None:
        number = next(self._numbers)
        for pause in (*REPEATS, None):
            if await self._send(task, url, number, fault) or pause is None:
                return
            await self._wait(pause)

    async def _send(self, task: Task, url: str, number: int, fault: Fault | None) -> bool:
        """Send a delivery once; return whether it was taken. Both shapes and both forms of the secret come in turn."""
        state = self.state
        has_task_shape = bool(number // len(state.webhook_forms) % 2)
        value = build_delivery(task, state.clock(), state.create_bfl_url, has_task_shape=has_task_shape)
        body = json.dumps(value).encode()
        form, secret = state.webhook_forms[number % len(state.webhook_forms)], task.request.webhook_secret
        if fault is not None and fault.kind is FaultKind.WEBHOOK_FORGED:
            form = SIGNATURE if fault.variant == SIGNATURE else SECRET
            secret = None if fault.variant == "neither" else WRONG
        headers = {"Content-Type": "application/json", **build_secret_headers(form, secret, body)}
        timeout = aiohttp.ClientTimeout(total=RECEIVER_SECONDS)
        try:
            async with (
                aiohttp.ClientSession(timeout=timeout) as session,
                session.post(url, data=body, headers=headers, allow_redirects=False) as response,
            ):
                return HTTPStatus.OK <= response.status < HTTPStatus.MULTIPLE_CHOICES
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def _wait(self, seconds: float) -> None:
        """Wait for that many seconds of the clock."""
        until = self.state.clock() + seconds
        while self.state.clock() < until:
            await self.state.pause(CLOCK_CHECK_INTERVAL)
