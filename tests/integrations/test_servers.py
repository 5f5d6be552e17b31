"""The web integrations under their real servers, each in a process of its own, over HTTP to the emulator."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import pytest
from server_processes import SERVERS, Reply, RunningServer, post_image, run_server
from session_support import count_creates, decode_format, until
from yarl import URL

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from kontext_async.emulator import Emulator

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

USERS = 200
PROBLEM = "application/problem+json"
ONE_FRAMEWORK_EACH = [name for name in SERVERS if name not in {"uvicorn-fastapi", "uvicorn-litestar"}]
"""Each server once: what these frameworks add to Starlette does not matter to every test."""


@pytest.fixture(params=SERVERS)
def name(request: pytest.FixtureRequest) -> str:
    """The server under test."""
    server: str = request.param
    return server


@pytest.fixture
def service_time() -> float:
    """Seconds of a task."""
    return 0.2


@pytest.fixture
def emulator_options(service_time: float) -> dict[str, Any]:
    return {"service_time": service_time, "pixels": 64 * 64}


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as running:
        yield running


async def post_images(client: aiohttp.ClientSession, server: RunningServer, users: int) -> list[asyncio.Task[Reply]]:
    """Start the requests of several users at once."""
    return [asyncio.create_task(post_image(client, server.url)) for _ in range(users)]


def problem_in(reply: Reply) -> dict[str, Any]:
    assert reply.headers["content-type"] == PROBLEM
    problem: dict[str, Any] = json.loads(reply.body)
    assert problem["status"] == reply.status
    return problem


def ids_in(replies: list[Reply]) -> list[str]:
    """Return the IDs of the tasks that users have learned of: with an image, or in a problem."""
    ids = [reply.headers["x-task-id"] for reply in replies if reply.status == 200]
    return ids + [problem["task_id"] for problem in map(problem_in, refused(replies)) if "task_id" in problem]


def refused(replies: list[Reply]) -> list[Reply]:
    return [reply for reply in replies if reply.status not in (200, None)]


async def announce_large_body(server: RunningServer) -> str:
    """Announce a body that is larger than the rules allow, and return the first line of the response."""
    url = URL(server.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(b"POST /images HTTP/1.1\r\nHost: h\r\nContent-Length: 999999999\r\n\r\nx")
    line = await reader.readline()
    writer.close()
    await writer.wait_closed()
    return line.decode()


async def test_users_get_images_problems_and_events(
    name: str, emulator: Emulator, client: aiohttp.ClientSession
) -> None:
    async with run_server(SERVERS[name], emulator) as server:
        replies = await asyncio.gather(*await post_images(client, server, 10))
        assert [reply.status for reply in replies] == [200] * 10
        assert {decode_format(reply.body) for reply in replies} == {"JPEG"}
        assert {reply.headers["content-type"] for reply in replies} == {"image/jpeg"}
        assert len(set(ids_in(replies))) == emulator.ledger.billed == 10

        stranger = {"prompt": "a fox", "input_images": "/etc/passwd"}
        problem = problem_in(await post_image(client, server.url, stranger))
        assert (problem["status"], problem["field"]) == (422, "input_images[0]")
        assert problem["type"] == "urn:problem-type:kontext-async:invalid-request"

        assert (await announce_large_body(server)).startswith("HTTP/1.1 413")

        async with client.post(f"{server.url}/tasks", json={"prompt": "a fox"}) as response:
            assert response.status == 202
            task_id = (await response.json())["task_id"]
        async with client.get(f"{server.url}/tasks/{task_id}/events") as response:
            assert response.content_type == "text/event-stream"
            text = await response.text()
        events = [line.removeprefix("event: ") for line in text.splitlines() if line.startswith("event: ")]
        assert events[-1] == "completed"
        data = [json.loads(line.removeprefix("data: ")) for line in text.splitlines() if line.startswith("data: ")]
        assert data[-1]["images"]
        async with client.get(f"{server.url}/tasks/unknownunknown/events") as response:
            assert "event: problem" in await response.text()


@pytest.mark.parametrize("name", ONE_FRAMEWORK_EACH)
@pytest.mark.parametrize("service_time", [1.0])
async def test_clients_that_hang_up_while_they_wait_are_not_billed(name: str, emulator: Emulator) -> None:
    async with run_server(SERVERS[name], emulator, MAX_IN_FLIGHT="24") as server, aiohttp.ClientSession() as stays:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as leaves:
            users = await post_images(leaves, server, 60)
            await until(lambda: count_creates(emulator) >= 8)
            for user in users:
                user.cancel()
            await asyncio.gather(*users, return_exceptions=True)
        reply = await post_image(stays, server.url)
        assert reply.status == 200
    workers = 2 if name.startswith("gunicorn") else 1
    assert emulator.ledger.billed <= 24 * workers + 1


@pytest.mark.parametrize("service_time", [1.0])
async def test_every_user_gets_an_image_or_the_id_when_the_server_is_stopped(
    name: str, emulator: Emulator, client: aiohttp.ClientSession
) -> None:
    async with run_server(SERVERS[name], emulator, GRACE="2", MAX_IN_FLIGHT="24") as server:
        users = await post_images(client, server, USERS)
        await until(lambda: emulator.ledger.billed >= 8)
        server.terminate()
        replies = list(await asyncio.gather(*users))
        assert await server.wait(10) < 8
    assert sorted(ids_in(replies)) == sorted(emulator.ledger.task_ids)
    assert {reply.status for reply in replies} <= {200, 503, None}
    for problem in map(problem_in, refused(replies)):
        assert problem.get("task_id") or not problem["may_be_charged"]


@pytest.mark.parametrize("name", ONE_FRAMEWORK_EACH)
@pytest.mark.parametrize("service_time", [60.0])
async def test_a_second_sigterm_ends_the_server_at_once(
    name: str, emulator: Emulator, client: aiohttp.ClientSession
) -> None:
    async with run_server(SERVERS[name], emulator, GRACE="30") as server:
        users = await post_images(client, server, 8)
        await until(lambda: emulator.ledger.billed == 8)
        server.terminate()
        await asyncio.sleep(0.3)
        assert server.process.returncode is None
        if name.startswith("gunicorn"):  # its master passes only the first one on to the workers
            server.terminate_all()
        else:
            server.terminate()
        assert await server.wait(10) < 8
        replies = list(await asyncio.gather(*users))
    assert sorted(ids_in(replies)) == sorted(emulator.ledger.task_ids)


@pytest.mark.parametrize("name", ONE_FRAMEWORK_EACH)
@pytest.mark.parametrize("service_time", [60.0])
async def test_a_stream_of_events_ends_with_the_server(
    name: str, emulator: Emulator, client: aiohttp.ClientSession
) -> None:
    async with run_server(SERVERS[name], emulator, GRACE="0.5") as server:
        async with client.post(f"{server.url}/tasks", json={"prompt": "a fox"}) as response:
            task_id = (await response.json())["task_id"]
        async with client.get(f"{server.url}/tasks/{task_id}/events") as response:
            first = await response.content.readline()
            server.terminate()
            text = (first + await response.read()).decode()
        assert await server.wait(10) < 8
    assert "event: problem" in text
    assert task_id in text.partition("event: problem")[2]
