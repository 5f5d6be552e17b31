"""The webhooks of the emulator: both forms of the secret, both shapes of the body, late, twice and lost."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from attrs import define, field
from http_support import Request, http_response, scripted_server
from session_support import until

from kontext_async.emulator import Fault

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from emulator_support import Caller, ManualTime, Serve

pytestmark = pytest.mark.anyio

SECRET = "s3cret"


@define
class Receiver:
    """A server that takes webhooks, unless it is to refuse the next ones."""

    url: str = ""
    refusals: int = 0
    deliveries: list[Request] = field(factory=list)
    times: list[float] = field(factory=list)
    clock: ManualTime | None = None

    def respond(self, request: Request) -> bytes:
        self.deliveries.append(request)
        self.times.append(self.clock.now if self.clock else 0.0)
        if self.refusals:
            self.refusals -= 1
            return http_response(status="503 Service Unavailable")
        return http_response()

    async def wait_for(self, count: int) -> None:
        await until(lambda: len(self.deliveries) == count)


@pytest.fixture
async def receiver(anyio_backend: str) -> AsyncIterator[Receiver]:
    receiver = Receiver()
    async with scripted_server(receiver.respond) as server:
        receiver.url = server.url
        yield receiver


async def create(caller: Caller, url: str, secret: str | None = SECRET) -> dict[str, Any]:
    reply = await caller.request(
        "POST",
        "/v1/flux-kontext-pro",
        json={"prompt": "a fox", "webhook_url": url, "webhook_secret": secret},
        headers={"Authorization": "", "x-key": caller.emulator.api_key},
    )
    created: dict[str, Any] = reply.json
    return created


def sign(body: bytes) -> str:
    return "sha256=" + hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()


async def test_a_create_request_with_a_webhook_gets_no_address(serve: Serve, receiver: Receiver) -> None:
    caller = await serve()
    created = await create(caller, f"{receiver.url}/hook?a=1")
    assert "polling_url" not in created
    assert (created["status"], created["webhook_url"], created["cost"]) == ("Pending", f"{receiver.url}/hook?a=1", 4.0)
    await until(lambda: receiver.deliveries)
    delivery = receiver.deliveries[0]
    assert (delivery.method, delivery.target) == ("POST", "/hook?a=1")
    assert json.loads(delivery.body)["id"] == created["id"]


async def test_both_forms_and_both_shapes_come_in_turn(serve: Serve, receiver: Receiver) -> None:
    caller = await serve()
    for number in range(1, 5):
        await create(caller, receiver.url)
        await receiver.wait_for(number)
    secrets = [each.header("X-Webhook-Secret") for each in receiver.deliveries]
    signatures = [each.header("X-BFL-Signature") for each in receiver.deliveries]
    assert secrets == [SECRET, None, SECRET, None]
    assert signatures == [None, sign(receiver.deliveries[1].body), None, sign(receiver.deliveries[3].body)]
    bodies = [json.loads(each.body) for each in receiver.deliveries]
    assert [("timestamp" in body, "progress" in body) for body in bodies] == [(True, False)] * 2 + [(False, True)] * 2
    assert all(body["result"]["sample"].startswith("http") for body in bodies)


async def test_one_form_can_be_chosen_and_no_secret_sends_no_header(serve: Serve, receiver: Receiver) -> None:
    caller = await serve(webhook_forms=("signature",))
    await create(caller, receiver.url)
    await until(lambda: receiver.deliveries)
    assert receiver.deliveries[0].header("X-BFL-Signature") == sign(receiver.deliveries[0].body)
    await create(caller, receiver.url, secret=None)
    await until(lambda: len(receiver.deliveries) == 2)
    assert receiver.deliveries[1].header("X-BFL-Signature") is None


@pytest.mark.parametrize(("kind", "status"), [("task-fails", "Error"), ("task-moderated", "Moderated")])
async def test_a_failure_is_reported_too(serve: Serve, receiver: Receiver, kind: str, status: str) -> None:
    caller = await serve()
    caller.emulator.faults.script("create", [Fault(kind=kind, message="no")])
    await create(caller, receiver.url)
    await until(lambda: receiver.deliveries)
    body = json.loads(receiver.deliveries[0].body)
    assert status in body["status"]
    assert body["message"] == "no"


async def test_a_delivery_comes_when_the_task_ends(serve: Serve, receiver: Receiver, clock: ManualTime) -> None:
    caller = await serve(clock=clock, service_time=10)
    created = await create(caller, receiver.url)
    clock.advance(9)
    status = await caller.request("GET", f"/v1/get_result?id={created['id']}", headers={"Authorization": ""})
    assert status.json["status"] == "Pending"
    assert not receiver.deliveries
    clock.advance(1)
    await until(lambda: receiver.deliveries)


async def test_a_late_delivery(serve: Serve, receiver: Receiver, clock: ManualTime) -> None:
    caller = await serve(clock=clock)
    caller.emulator.faults.script("webhook", [Fault(kind="webhook-late", seconds=60)])
    await create(caller, receiver.url)
    await until(lambda: not caller.emulator.faults.waiting("webhook"))
    clock.advance(59)
    await create(caller, receiver.url)
    await until(lambda: receiver.deliveries)
    assert len(receiver.deliveries) == 1
    clock.advance(1)
    await until(lambda: len(receiver.deliveries) == 2)
    first, second = (json.loads(each.body)["id"] for each in receiver.deliveries)
    assert first != second


async def test_a_delivery_that_comes_twice_and_one_that_is_lost(serve: Serve, receiver: Receiver) -> None:
    caller = await serve()
    caller.emulator.faults.script("webhook", ["webhook-lost", "webhook-twice"])
    lost = await create(caller, receiver.url)
    await until(lambda: caller.emulator.faults.waiting("webhook") == 1)
    twice = await create(caller, receiver.url)
    await until(lambda: len(receiver.deliveries) == 2)
    assert {json.loads(each.body)["id"] for each in receiver.deliveries} == {twice["id"]}
    assert lost["id"] != twice["id"]


@pytest.mark.parametrize("variant", ["secret", "signature", "neither"])
async def test_a_forged_delivery(serve: Serve, receiver: Receiver, variant: str) -> None:
    caller = await serve()
    caller.emulator.faults.script("webhook", [Fault(kind="webhook-forged", variant=variant)])
    await create(caller, receiver.url)
    await until(lambda: receiver.deliveries)
    delivery = receiver.deliveries[0]
    given = {delivery.header("X-Webhook-Secret"), delivery.header("X-BFL-Signature")}
    assert given.isdisjoint({SECRET, sign(delivery.body)})
    assert (given == {None}) is (variant == "neither")


async def test_a_delivery_that_is_not_taken_is_repeated_three_times(
    serve: Serve, receiver: Receiver, clock: ManualTime
) -> None:
    caller = await serve(clock=clock)
    receiver.refusals = 10
    receiver.clock = clock
    await create(caller, receiver.url)

    def is_repeated() -> bool:
        clock.advance(0.01)
        return len(receiver.deliveries) == 4

    await until(is_repeated)
    gaps = [after - before for before, after in pairwise(receiver.times)]
    assert [gap >= pause for gap, pause in zip(gaps, (1, 5, 30), strict=True)] == [True] * 3
    clock.advance(1000)
    await create(caller, receiver.url)
    await until(lambda: len(receiver.deliveries) == 5)
    ids = [json.loads(each.body)["id"] for each in receiver.deliveries]
    assert len(set(ids[:4])) == 1
    assert ids[4] != ids[0]


async def test_closing_the_emulator_gives_up_deliveries(serve: Serve, receiver: Receiver, clock: ManualTime) -> None:
    caller = await serve(clock=clock, service_time=10)
    await create(caller, receiver.url)
    before = len(asyncio.all_tasks())
    await caller.emulator.aclose()
    assert len(asyncio.all_tasks()) < before
    clock.advance(10)
    assert not receiver.deliveries


@pytest.mark.parametrize("url", ["https://example.com/hook", "http://10.0.0.1/hook"])
async def test_no_delivery_leaves_this_machine(serve: Serve, url: str) -> None:
    caller = await serve()
    tasks = asyncio.all_tasks()
    created = await create(caller, url)
    assert created["webhook_url"] == url
    assert not [each for each in asyncio.all_tasks() - tasks if "_deliver" in repr(each)]
