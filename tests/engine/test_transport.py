"""The transport against servers that send what no proper server sends."""

from __future__ import annotations

import asyncio
import json
import pickle
from typing import TYPE_CHECKING, Any

import aiohttp
import attrs
import pytest
from http_support import (
    JPEG,
    Request,
    ScriptedServer,
    http_response,
    read_request,
    scripted_server,
    tls_server,
)
from session_support import raw_server, turn_loop

from kontext_async import (
    ConfigurationError,
    DownloadFailed,
    GatewayUnavailable,
    GeneratedImage,
    KontextError,
    KontextSession,
    Network,
    Outages,
    Polling,
    RequestRejected,
    Retries,
    SubmissionUncertain,
    Timeouts,
)
from kontext_async.decisions.transport_failures import TransportFailure
from kontext_async.engine.transport import TransportError
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.anyio

KEY = "sk-secret-0123456789abcdef"
CREATED = json.dumps({"id": "task-1", "status": "in_progress"}).encode()
COMPLETED = json.dumps(
    {"id": "task-1", "status": "completed", "output": [{"content": [{"type": "image", "url": "http://127.0.0.1/x"}]}]}
).encode()
ONCE = attrs.evolve(FAST, retries=Retries(attempts=1), outages=Outages(uncertain_limit=100, wait=0.0))


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n", headers: str = "") -> bytes:
    head = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n{headers}\r\n".encode()
    return head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + end


def new_session(server: ScriptedServer, **options: Any) -> KontextSession:
    return KontextSession(KEY, base_url=server.url, settings=ONCE, **options)


async def read(server: ScriptedServer, url: str, **options: Any) -> bytes:
    async with new_session(server, **options) as session:
        return await session.read(GeneratedImage(url=url))


async def download_error(server: ScriptedServer, url: str, **options: Any) -> DownloadFailed:
    with pytest.raises(DownloadFailed) as caught:
        await read(server, url, **options)
    return caught.value


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error, and all that led to it, contexts that a traceback leaves out included."""
    seen: list[BaseException] = []
    ahead: list[BaseException | None] = [error]
    while ahead:
        each = ahead.pop()
        if each is not None and each not in seen:
            seen.append(each)
            ahead += [each.__cause__, each.__context__]
    yield from seen


class TestOpaqueUrls:
    async def test_a_url_is_requested_byte_for_byte(self) -> None:
        async with scripted_server(lambda _: http_response(JPEG)) as server:
            for target in ("/a.png?sig=a%2Fb%2Bc%3D&x=%7E", "/%2e%2E/a//b?x=a+b&y=%zz", "/a?\"<>`{|}^\\'"):
                assert await read(server, server.url + target) == JPEG
                assert server.targets()[-1] == target

    async def test_what_cannot_be_sent_is_quoted_and_nothing_else(self) -> None:
        async with scripted_server(lambda _: http_response(JPEG)) as server:
            await read(server, f"{server.url}/a b\t\u00e9?sig=%7E c")
            assert server.targets() == ["/a%20b%09%C3%A9?sig=%7E%20c"]

    @pytest.mark.parametrize("base", ["", "{server}"])
    async def test_a_redirect_is_followed_byte_for_byte(self, base: str) -> None:
        def respond(request: Request) -> bytes:
            if request.target == "/start":
                location = base.format(server=server.url) + "/a%2Fb?sig=a%2Fb%2Bc%3D&x=%7E&y=\u00e9"
                return http_response(status="302 Found", headers=f"Location: {location}\r\n")
            return http_response(JPEG)

        async with scripted_server(respond) as server:
            assert await read(server, f"{server.url}/start") == JPEG
            assert server.targets()[-1] == "/a%2Fb?sig=a%2Fb%2Bc%3D&x=%7E&y=%E9"

    @pytest.mark.parametrize(
        "url", ["http://a..b/x.png", f"http://{'a' * 64}.example/x.png", "http://h:99999/", "ftp:a"]
    )
    async def test_an_unusable_url_is_refused_without_another_attempt(self, url: str) -> None:
        async with scripted_server(
            lambda _: http_response(status="302 Found", headers=f"Location: {url}\r\n")
        ) as server:
            error = await download_error(server, url)
            assert not error.retryable
            error = await download_error(server, f"{server.url}/start")
            assert "redirects" in error.reason
            assert len(server.requests) == 1


class TestRedirects:
    async def test_a_loop_is_named_as_one(self) -> None:
        async with scripted_server(lambda _: http_response(status="302 Found", headers="Location: /a\r\n")) as server:
            error = await download_error(server, f"{server.url}/a")
            assert "loop" in error.reason
            assert len(server.requests) == 1

    async def test_too_many_are_counted(self) -> None:
        def respond(request: Request) -> bytes:
            return http_response(status="307 Temporary Redirect", headers=f"Location: {request.target}x\r\n")

        async with scripted_server(respond) as server:
            error = await download_error(server, f"{server.url}/a")
            assert "more than 5 times" in error.reason
            assert len(server.requests) == 6

    async def test_a_redirect_of_a_create_request_names_its_target_without_query(self) -> None:
        headers = "Location: https://other.example/model?token=secret\r\n"
        async with scripted_server(lambda _: http_response(status="308 Permanent Redirect", headers=headers)) as server:
            async with new_session(server) as session:
                with pytest.raises(RequestRejected) as caught:
                    await session.generate("a fox")
            assert "https://other.example/model" in str(caught.value)
            assert "secret" not in str(caught.value)
            assert len(server.requests) == 1


class TestLargeHeads:
    @pytest.mark.parametrize(
        "headers",
        [
            "X-Trace: " + "x" * 9000 + "\r\n",
            "X-Trace: " + "x" * 65_536 + "\r\n",
            "X-Many: y\r\n" * 130,
            "A: b\r\n" * 2000,
        ],
        ids=["9 kB", "64 KiB", "130", "2000"],
    )
    async def test_a_response_with_a_large_head_is_read(self, headers: str) -> None:
        def respond(request: Request) -> bytes:
            if request.method == "POST":
                return http_response(CREATED, headers=headers)
            done = COMPLETED.replace(b"http://127.0.0.1", server.url.encode())
            return http_response(done if "/task/" in request.target else JPEG, headers=headers)

        async with scripted_server(respond) as server, new_session(server) as session:
            generation = await session.generate("a fox")
            assert await session.read(generation.images[0]) == JPEG

    async def test_so_it_is_with_a_session_of_the_users_own(self) -> None:
        headers = "X-Trace: " + "x" * 9000 + "\r\n"
        async with (
            scripted_server(lambda _: http_response(COMPLETED, headers=headers)) as server,
            aiohttp.ClientSession() as http,
            new_session(server, http=http) as session,
        ):
            assert (await session.generate("a fox")).task_id == "task-1"


class TestBrokenFraming:
    @pytest.mark.parametrize(
        "response",
        [
            chunked(CREATED, end=b""),
            chunked(CREATED, end=b"0\r\n"),
            chunked(CREATED[:9], CREATED[9:], end=b""),
            http_response(CREATED, length=len(CREATED) + 1),
            http_response(CREATED, length=10**9),
        ],
    )
    @pytest.mark.parametrize("close", [True, False])
    async def test_a_complete_object_is_accepted(self, response: bytes, *, close: bool) -> None:
        async with scripted_server(lambda _: response) as server:
            server.close_after_response = close
            async with new_session(server) as session:
                assert (await session.submit("a fox")).id == "task-1"
            assert len(server.requests) == 1

    @pytest.mark.parametrize(
        "response",
        [
            chunked(CREATED, end=b"ZZ\r\n"),
            chunked(CREATED, end=b"0\r\nno trailer\r\n\r\n"),
            http_response(CREATED, length=len(CREATED) - 3),
            http_response(CREATED) + b"something else",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + CREATED,
            b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n" + CREATED,
            http_response(CREATED, headers="No Header\r\n"),
        ],
    )
    async def test_a_complete_object_is_accepted_although_the_parser_refuses_the_response(
        self, response: bytes
    ) -> None:
        async with scripted_server(lambda _: response) as server, new_session(server) as session:
            assert (await session.submit("a fox")).id == "task-1"

    async def test_a_body_that_the_parser_refuses_is_not_awaited_until_the_deadline(self) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n" + CREATED[:5] + b"\r\n")
            await writer.drain()
            await headers_read.wait()
            writer.write(b"no chunk\r\n")
            await reader.read()
            writer.close()

        headers_read = asyncio.Event()
        async with raw_server(serve) as url, KontextSession(KEY, base_url=url, settings=ONCE) as session:
            submission = asyncio.ensure_future(session.submit("a fox"))
            await turn_loop(50)
            headers_read.set()
            with pytest.raises(SubmissionUncertain):
                await asyncio.wait_for(submission, 5)

    async def test_a_status_is_read(self) -> None:
        async with scripted_server(lambda _: chunked(COMPLETED, end=b"")) as server, new_session(server) as session:
            assert (await session.attach("task-1").wait()).task_id == "task-1"

    async def test_half_an_object_is_uncertain(self) -> None:
        half = http_response(CREATED[:-1], length=len(CREATED))
        async with scripted_server(lambda _: half) as server, new_session(server) as session:
            with pytest.raises(SubmissionUncertain):
                await session.submit("a fox")

    async def test_a_refusal_is_read_although_its_page_is_cut(self) -> None:
        page = http_response(b"<html>", status="403 Forbidden", length=1000)
        async with scripted_server(lambda _: page) as server, new_session(server) as session:
            with pytest.raises(KontextError) as caught:
                await session.submit("a fox")
            assert not isinstance(caught.value, SubmissionUncertain)

    @pytest.mark.parametrize("response", [chunked(JPEG, end=b""), http_response(JPEG, length=len(JPEG) + 1)])
    async def test_a_complete_image_is_complete(self, response: bytes) -> None:
        async with scripted_server(lambda _: response) as server:
            assert await read(server, f"{server.url}/a.jpg") == JPEG
            assert len(server.requests) == 1


class TestTheKeyInTextsOfTheLibrary:
    @pytest.mark.parametrize(
        "echo",
        [
            lambda head: head,
            lambda head: b"HTTP/1.1 " + head.replace(b"\r\n", b" "),
            lambda head: b"HTTP/1.1 200 OK\r\n" + head.replace(b": ", b" "),
            lambda head: b"HTTP/1.1 200 OK\r\nContent-Length: " + head.replace(b"\r\n", b" ") + b"\r\n\r\n",
            lambda head: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + head,
            lambda head: b"HTTP/1.1 503 " + head.replace(b"\r\n", b" ") + b"\r\n\r\n",
            lambda head: b"HTTP/1.1 302 Found\r\nLocation: http://x/" + head.split(b"Bearer ")[1][:26] + b"\r\n\r\n",
            lambda head: (
                b"HTTP/1.1 503 No\r\nRetry-After: 0\r\nX-Request-Id: " + head.split(b"Bearer ")[1][:26] + b"\r\n\r\n"
            ),
        ],
    )
    @pytest.mark.parametrize("operation", ["submit", "wait"])
    async def test_the_key_is_in_no_text_no_cause_and_no_pickle(
        self, echo: Callable[[bytes], bytes], operation: str
    ) -> None:
        quick = attrs.evolve(ONCE, retries=Retries(attempts=1, failure_budget=0.01, backoff_initial=0.01))
        async with (
            scripted_server(lambda request: echo(request.head)) as server,
            KontextSession(KEY, base_url=server.url, settings=quick) as session,
        ):
            with pytest.raises(KontextError) as caught:
                await (session.submit("a fox") if operation == "submit" else session.attach("task-1").wait())
        for error in causes(caught.value):
            assert not isinstance(error, aiohttp.ClientError)
            assert KEY not in f"{error} {error!r} {error.args} {vars(error)}"
            assert KEY.encode() not in pickle.dumps(error)


class TestCertificates:
    async def test_a_refused_certificate_is_named_completely(self) -> None:
        async with tls_server(lambda _: http_response(CREATED)) as server, new_session(server) as session:
            with pytest.raises(KontextError) as caught:
                await session.generate("a fox")
            host = server.url.removeprefix("https://")
            assert f"the certificate of {host} was refused: self" in str(caught.value)
            assert not isinstance(caught.value, SubmissionUncertain)
            assert session.statistics().submitted == 1

    async def test_a_download_with_a_refused_certificate_is_not_tried_again(self) -> None:
        async with tls_server(lambda _: http_response(JPEG)) as server:
            patient = Retries(attempts=6, backoff_initial=30)  # another attempt would exceed the test's time limit
            error = await download_error(server, f"{server.url}/a.jpg", retries=patient)
            assert "was refused: self" in error.reason
            assert not error.retryable


class TestKindsOfFailure:
    async def failure_of(self, base_url: str, **options: Any) -> TransportError:
        async with KontextSession(KEY, base_url=base_url, settings=ONCE, **options) as session:
            engine = session._engine
            with pytest.raises(TransportError) as caught:
                await engine.transport.poll(engine.gateway.status(engine.gateway.refer("task-1")))
        return caught.value

    async def test_a_name_without_address(self) -> None:
        failure = await self.failure_of("http://no-such-host.invalid")
        assert failure.kind is TransportFailure.DNS
        assert "no-such-host.invalid" in str(failure)

    async def test_a_refused_connection(self) -> None:
        async with scripted_server(lambda _: None) as server:
            pass
        failure = await self.failure_of(server.url)
        assert failure.kind is TransportFailure.REFUSED
        assert server.url.removeprefix("http://") in str(failure)

    async def test_a_server_without_tls(self) -> None:
        async with scripted_server(lambda _: http_response()) as server:
            failure = await self.failure_of(server.url.replace("http:", "https:"), timeouts=Timeouts(connect=0.5))
        assert failure.kind in (TransportFailure.CERTIFICATE, TransportFailure.TIMEOUT, TransportFailure.REFUSED)

    async def test_a_timeout(self) -> None:
        async with scripted_server(lambda _: b"HTTP/1.1 200 OK\r\n") as server:
            server.close_after_response = False
            failure = await self.failure_of(server.url, timeouts=Timeouts(status=0.05))
        assert failure.kind is TransportFailure.TIMEOUT

    async def test_a_lost_connection(self) -> None:
        async with scripted_server(lambda _: None) as server:
            assert (await self.failure_of(server.url)).kind is TransportFailure.LOST

    async def test_a_response_that_is_no_http(self) -> None:
        async with scripted_server(lambda _: b"hello\r\n\r\n") as server:
            assert (await self.failure_of(server.url)).kind is TransportFailure.PROTOCOL


class TestForbiddenAddresses:
    """The base URL is on loopback, so loopback is permitted, and all else that is not public is not."""

    @pytest.mark.parametrize(
        "host", ["10.0.0.7", "169.254.169.254", "192.168.0.1", "[fd00::1]", "[::ffff:10.0.0.7]", "[64:ff9b::a00:7]"]
    )
    async def test_a_url_is_refused_before_a_connection_and_without_another_attempt(self, host: str) -> None:
        async with scripted_server(lambda _: http_response(JPEG)) as server:
            error = await download_error(server, f"http://{host}/a.jpg", retries=FAST.retries)
            assert "not public" in error.reason
            assert not error.retryable

    async def test_a_redirect_is_refused(self) -> None:
        headers = "Location: http://169.254.169.254/latest/meta-data\r\n"
        async with scripted_server(lambda _: http_response(status="302 Found", headers=headers)) as server:
            assert "not public" in (await download_error(server, f"{server.url}/a.jpg")).reason

    @pytest.mark.parametrize("own", [True, False])
    async def test_loopback_is_refused_with_a_public_base_url(self, *, own: bool) -> None:
        async with scripted_server(lambda _: http_response(JPEG)) as server, aiohttp.ClientSession() as http:
            given = http if own else None
            port = server.url.rpartition(":")[2]
            for host in ("127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "[::1]"):
                async with KontextSession(KEY, base_url="http://8.8.8.8", settings=ONCE, http=given) as session:
                    with pytest.raises(DownloadFailed, match="not public"):
                        await session.read(GeneratedImage(url=f"http://{host}:{port}/a.jpg"))
            assert server.connections == 0

    @pytest.mark.parametrize("own", [True, False])
    async def test_a_name_that_resolves_to_loopback_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, *, own: bool
    ) -> None:
        resolve_all_to(monkeypatch, "127.0.0.1")
        async with scripted_server(lambda _: http_response(JPEG)) as server, aiohttp.ClientSession() as http:
            given = http if own else None
            async with KontextSession(KEY, base_url="http://8.8.8.8", settings=ONCE, http=given) as session:
                with pytest.raises(DownloadFailed, match="not public"):
                    await session.read(GeneratedImage(url=f"http://cdn.example:{server.url.rpartition(':')[2]}/a"))
            assert server.connections == 0

    async def test_the_network_of_a_base_url_with_a_name_is_permitted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        resolve_all_to(monkeypatch, "127.0.0.1")
        async with scripted_server(lambda _: http_response(JPEG)) as server:
            port = server.url.rpartition(":")[2]
            async with KontextSession(KEY, base_url="http://gateway.example", settings=ONCE) as session:
                assert await session.read(GeneratedImage(url=f"http://cdn.example:{port}/a.jpg")) == JPEG

    async def test_a_base_url_that_has_no_address_is_looked_up_a_few_times(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from kontext_async.engine import address_guard

        looked_up: list[str] = []

        async def fail(host: str, seconds: float) -> list[str]:
            looked_up.append(host)
            return []

        monkeypatch.setattr(address_guard, "_resolve", fail)
        async with KontextSession(KEY, base_url="http://gateway.example", settings=ONCE) as session:
            for _ in range(5):
                with pytest.raises(DownloadFailed, match="not public"):
                    await session.read(GeneratedImage(url="http://127.0.0.1/a.jpg"))
        assert looked_up == ["gateway.example"] * 3

    async def test_a_setting_permits_a_network(self) -> None:
        async with scripted_server(lambda _: http_response(JPEG)) as server:
            network = Network(allow=("127.0.0.0/8",))
            async with KontextSession(KEY, base_url="http://8.8.8.8", settings=ONCE, network=network) as session:
                assert await session.read(GeneratedImage(url=f"{server.url}/a.jpg")) == JPEG


def resolve_all_to(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    """Have every name resolve to one address, as a hostile name server may."""
    import socket

    original = socket.getaddrinfo

    def resolve(host: Any, port: Any, *args: Any, **options: Any) -> Any:
        return original(address, port, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)


async def test_a_create_request_on_a_closing_connection_is_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    from kontext_async.engine import uploads

    original = uploads.Upload.hand_over
    closed: list[object] = []

    def close_first(self: uploads.Upload) -> None:
        original(self)
        if not closed:  # the connection begins to close between the choice of the connection and the first byte
            closed.append(self)
            for protocol in session._engine.transport._creates.connector._acquired:  # type: ignore[union-attr]
                protocol.transport.close()  # type: ignore[union-attr]

    monkeypatch.setattr(uploads.Upload, "hand_over", close_first)
    async with scripted_server(lambda _: http_response(CREATED)) as server:
        never = Polling(initial_delay=60.0)  # a poll has a connection of its own
        async with KontextSession(KEY, base_url=server.url, settings=FAST, polling=never) as session:
            assert (await session.submit("a fox")).id == "task-1"
        assert len(server.requests) == 1
        assert server.connections == 2


async def test_a_create_request_never_uses_a_connection_that_idled() -> None:
    async with scripted_server(lambda _: http_response(COMPLETED)) as server:
        server.close_after_response = False
        async with KontextSession(KEY, base_url=server.url, settings=FAST) as session:
            await session.generate("a fox")
            await session.generate("a fox")
            assert server.connections == 1
            connector: Any = session._engine.transport._creates.connector  # type: ignore[union-attr]
            for idle in connector._conns.values():
                protocol, since = idle.pop()
                idle.append((protocol, since - 0.6))  # it has idled for longer
            await session.generate("a fox")
            assert server.connections == 2


async def test_a_base_url_with_an_unusable_host_is_refused() -> None:
    for url in ("http://a..b", f"http://{'a' * 64}.example", "http://0x7f.1", "http://h:0x1"):
        with pytest.raises(ConfigurationError):
            KontextSession(KEY, base_url=url)


async def test_a_connection_that_is_refused_does_not_make_a_request_uncertain() -> None:
    async with scripted_server(lambda _: None) as server:
        pass
    async with new_session(server) as session:
        with pytest.raises(GatewayUnavailable) as caught:
            await session.submit("a fox")
    assert not caught.value.may_be_charged
