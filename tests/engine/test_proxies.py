"""Proxies: which requests go through them, and what happens when they do not work."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import aiohttp
import attrs
import pytest
from http_support import (
    JPEG,
    ProxyServer,
    Request,
    ScriptedServer,
    http_response,
    proxy_server,
    scripted_server,
    tls_server,
)

from kontext_async import (
    ConfigurationError,
    DownloadFailed,
    GatewayUnavailable,
    GeneratedImage,
    KontextError,
    KontextSession,
    Network,
    Outages,
    Retries,
    SubmissionUncertain,
)
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.anyio

KEY = "sk-secret-0123456789abcdef"
ONCE = attrs.evolve(
    FAST, retries=Retries(attempts=1), outages=Outages(uncertain_limit=100, wait=0.0), network=Network()
)
VARIABLES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
async def server(anyio_backend: str) -> AsyncIterator[ScriptedServer]:
    def respond(request: Request) -> bytes:
        if request.target.endswith(".jpg"):
            return http_response(JPEG)
        url = f"{running.url}/a.jpg"
        content = [{"content": [{"type": "image", "url": url}]}]
        return http_response(json.dumps({"id": "task-1", "status": "completed", "output": content}).encode())

    async with scripted_server(respond) as running:
        running.close_after_response = False
        yield running


@pytest.fixture
async def proxy(anyio_backend: str) -> AsyncIterator[ProxyServer]:
    async with proxy_server() as running:
        yield running


async def generate_and_read(server: ScriptedServer, **options: Any) -> None:
    async with KontextSession(KEY, base_url=server.url, settings=ONCE, **options) as session:
        generation = await session.generate("a fox")
        assert (await session.attach("task-1").wait()).task_id == "task-1"
        assert await session.read(generation.images[0]) == JPEG


def paths(proxy: ProxyServer, server: ScriptedServer) -> list[str]:
    return [request.target.removeprefix(server.url) for request in proxy.requests]


EVERYTHING = ["/model/v1/generation", "/model/v1/generation/task/task-1", "/a.jpg"]


async def test_the_environments_proxy_is_used_for_creates_statuses_and_downloads(
    server: ScriptedServer, proxy: ProxyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    await generate_and_read(server)
    assert paths(proxy, server) == EVERYTHING


async def test_a_proxy_of_the_settings_is_used_for_everything(server: ScriptedServer, proxy: ProxyServer) -> None:
    await generate_and_read(server, network=Network(proxy=proxy.url))
    assert paths(proxy, server) == EVERYTHING


async def test_no_proxy_is_used_for_the_hosts_that_are_reached_directly(
    server: ScriptedServer, proxy: ProxyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", proxy.url)
    for value in ("*", "127.0.0.1", "127.0.0.0/8", server.url.removeprefix("http://")):
        monkeypatch.setenv("NO_PROXY", value)
        await generate_and_read(server)
    await generate_and_read(server, network=Network(proxy=None))
    assert proxy.requests == []


async def test_the_variables_are_read_when_the_session_opens(
    server: ScriptedServer, proxy: ProxyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with KontextSession(KEY, base_url=server.url, settings=ONCE) as session:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        await session.generate("a fox")
    assert proxy.requests == []


async def test_https_goes_through_a_tunnel_which_sees_no_key(
    proxy: ProxyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    async with (
        tls_server(lambda _: http_response()) as server,
        KontextSession(KEY, base_url=server.url, settings=ONCE) as session,
    ):
        with pytest.raises(KontextError, match="certificate of 127"):
            await session.generate("a fox")
    assert proxy.requests[0].method == "CONNECT"
    assert KEY.encode() not in proxy.requests[0].head


async def test_a_tunnel_sees_no_key_of_a_status_request(proxy: ProxyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    async with (
        tls_server(lambda _: http_response()) as server,
        KontextSession(KEY, base_url=server.url, settings=ONCE) as session,
    ):
        with pytest.raises(KontextError):
            await session.attach("task-1").status()
    assert proxy.requests[0].method == "CONNECT"
    assert KEY.encode() not in proxy.requests[0].head


def created_at(address: str) -> bytes:
    return http_response(json.dumps({"id": "task-1", "polling_url": f"{address}/v1/get_result?id=task-1"}).encode())


async def test_a_tunnel_to_the_host_of_a_task_sees_no_key(proxy: ProxyServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    proxy.refusal = http_response(status="502 Bad Gateway")
    options: dict[str, Any] = {"gateway": "bfl", "settings": ONCE, "trusted_hosts": ["poll.example:443"]}
    async with (
        scripted_server(lambda _: created_at("https://poll.example")) as server,
        KontextSession(KEY, base_url=server.url, **options) as session,
    ):
        task = await session.submit("a fox")
        with pytest.raises(KontextError, match="no response"):
            await task.status()
    assert {(request.method, request.target) for request in proxy.requests} == {("CONNECT", "poll.example:443")}
    assert not [request for request in proxy.requests if KEY.encode() in request.head]


async def test_a_proxy_that_cannot_be_used_for_the_host_of_a_task_fails_the_poll_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    options: dict[str, Any] = {"gateway": "bfl", "settings": ONCE, "trusted_hosts": ["poll.example:443"]}
    async with (
        scripted_server(lambda _: created_at("https://poll.example")) as server,
        KontextSession(KEY, base_url=server.url, **options) as session,
    ):
        task = await session.submit("a fox")
        with pytest.raises(GatewayUnavailable, match="SOCKS"):
            await task.status()
        assert (await session.submit("a wolf")).id == task.id


async def test_the_host_of_a_task_is_reached_directly_although_the_base_url_is_not(
    proxy: ProxyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", "localhost")

    def respond(request: Request) -> bytes:
        if "get_result" not in request.target:
            return created_at(running.url.replace("127.0.0.1", "localhost"))
        return http_response(json.dumps({"id": "task-1", "status": "Pending"}).encode())

    options: dict[str, Any] = {"gateway": "bfl", "settings": ONCE, "trusted_hosts": ["localhost"]}
    async with (
        scripted_server(respond) as running,
        KontextSession(KEY, base_url=running.url, **options) as session,
    ):
        assert (await (await session.submit("a fox")).status()).raw_status == "Pending"
    assert paths(proxy, running) == ["/v1/flux-kontext-pro"]


async def test_the_proxys_credentials_go_to_the_proxy_and_into_no_text(
    server: ScriptedServer, proxy: ProxyServer
) -> None:
    with_password = proxy.url.replace("http://", "http://user:pass%40word@")
    network = Network(proxy=with_password)
    await generate_and_read(server, network=network)
    expected = "Basic " + base64.b64encode(b"user:pass@word").decode()
    assert [request.header("Proxy-Authorization") for request in proxy.requests] == [expected] * 3
    assert "word" not in repr(network)
    assert proxy.url in repr(network)
    proxy.refusal = http_response(status="407 Proxy Authentication Required")
    for base_url in (server.url, "https://gateway.example"):
        async with KontextSession(KEY, base_url=base_url, settings=ONCE, network=network) as session:
            with pytest.raises(KontextError) as caught:
                await session.generate("a fox")
            assert "407" in str(caught.value)
            assert "word" not in f"{caught.value!r} {caught.value.__cause__!r} {session!r} {session.settings!r}"
            assert not isinstance(caught.value, SubmissionUncertain)


async def test_a_proxy_that_is_not_there_is_named(server: ScriptedServer) -> None:
    network = Network(proxy="http://user:secret@127.0.0.1:9")
    async with KontextSession(KEY, base_url=server.url, settings=ONCE, network=network) as session:
        with pytest.raises(KontextError, match=r"no connection to the proxy 127\.0\.0\.1:9") as caught:
            await session.generate("a fox")
    assert "secret" not in f"{caught.value!r} {caught.value.__cause__!r}"


@pytest.mark.parametrize(
    "proxy", ["socks5://user:secret@127.0.0.1:1080", "socks5h://h:1", "ftp://h:1", "http://", "http://h:x"]
)
async def test_a_proxy_that_cannot_be_used_is_refused_without_its_url(
    proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError) as caught:
        Network(proxy=proxy)
    assert "secret" not in str(caught.value)
    monkeypatch.setenv("ALL_PROXY", proxy)
    session = KontextSession(KEY, base_url="http://gateway.example", settings=ONCE)
    with pytest.raises(ConfigurationError) as caught:
        await session.start()
    assert "secret" not in str(caught.value)


async def test_a_proxy_that_cannot_be_used_does_not_matter_to_hosts_that_are_reached_directly(
    server: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:1080")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    await generate_and_read(server)
    async with KontextSession(KEY, base_url=server.url, settings=ONCE) as session:
        with pytest.raises(DownloadFailed, match="SOCKS") as caught:
            await session.read(GeneratedImage(url="https://cdn.example/a.jpg"))
        assert not caught.value.retryable


async def test_through_a_proxy_addresses_are_refused_and_names_are_the_proxys_to_judge(proxy: ProxyServer) -> None:
    proxy.refusal = http_response(JPEG)
    network = Network(proxy=proxy.url)
    async with KontextSession(KEY, base_url="http://gateway.example", settings=ONCE, network=network) as session:
        for host in ("127.0.0.1", "10.0.0.7", "[::1]", "localhost", "169.254.169.254", "[::ffff:127.0.0.1]"):
            with pytest.raises(DownloadFailed, match="not public"):
                await session.read(GeneratedImage(url=f"http://{host}/a.jpg"))
        assert proxy.requests == []
        assert await session.read(GeneratedImage(url="http://cdn.example/a.jpg?sig=%7E")) == JPEG
    assert [request.target for request in proxy.requests] == ["http://cdn.example/a.jpg?sig=%7E"]


async def test_a_session_of_the_users_own_keeps_its_own_proxy(
    server: ScriptedServer, proxy: ProxyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with aiohttp.ClientSession() as http:
        await generate_and_read(server, http=http)
        assert proxy.requests == []
        await generate_and_read(server, http=http, network=Network(proxy=proxy.url))
        assert paths(proxy, server) == EVERYTHING
