"""HTTP over aiohttp. No other module of the engine knows aiohttp, and its errors are translated here.

aiohttp's own total timeout also counts the wait for a connection, so this module sets none. The engine bounds
connections before the pool instead, and a deadline starts when a request has its place (ARCHITECTURE.md, "Paying
once").
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import aiohttp
import attrs
from yarl import URL

from kontext_async.decisions.proxies import ProxyRules
from kontext_async.decisions.transport_failures import TransportFailure
from kontext_async.decisions.urls import RedirectRefused, UnusableURL, follow_redirect, to_request_url
from kontext_async.engine import pools
from kontext_async.engine.address_guard import AddressGuard, ForbiddenAddress
from kontext_async.engine.lenient_protocol import LenientConnector, refused_bytes
from kontext_async.engine.pools import PARSER_LIMITS, REPEATABLE_KEEP_ALIVE, keep_read_buffers, make_pool
from kontext_async.engine.transport_errors import LIBRARY_ERRORS, TransportError, chain, translate
from kontext_async.engine.whole_body import WholeBody
from kontext_async.errors import ConfigurationError, KontextError, SessionClosed
from kontext_async.protocol import clean_body
from kontext_async.protocol.framing import find_response, is_whole
from kontext_async.protocol.http import Response
from kontext_async.redaction import clean_text
from kontext_async.settings import ENVIRONMENT, check_proxy, find_proxy_variables
from kontext_async.shared_timeout import SharedTimeout
from kontext_async.version import __version__

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
    from typing import TypeVar

    from kontext_async.engine.uploads import Upload
    from kontext_async.errors import GatewayError
    from kontext_async.gateways import Gateway, GatewayRequest
    from kontext_async.settings import Network, Settings

    ErrorT = TypeVar("ErrorT", bound=KontextError)

__all__ = ["Download", "Response", "Transport", "TransportError"]

MAX_RESPONSE_BYTES = 8 * 1024 * 1024
"""The largest response of the API that is read. None comes near it."""

GRACE_SECONDS = 1.0
"""Seconds for which the end of a response may be late once its body is a complete JSON object. With a length that is a
byte too long, it would otherwise take until the deadline."""

DOWNLOAD_BUFFER = 32 * 1024
"""Bytes of a download that may wait in the buffer before aiohttp stops reading; asyncio may deliver 256 KiB at once."""

MAX_REDIRECTS = 5
REDIRECTS = frozenset({301, 302, 303, 307, 308})

OK = HTTPStatus.OK.value


class Download:
    """The response to a download request, while its body is read.

    Attributes:
        status: The HTTP status.
        headers: The headers.
        content_length: The announced length of the body; None if there is none.
    """

    def __init__(self, response: aiohttp.ClientResponse, translate: Callable[[Exception], TransportError]) -> None:
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.content_length = response.content_length
        self._content = response.content
        self._translate = translate
        self._failure: TransportError | None = None

    async def read(self, size: int) -> bytes:
        """Return the next bytes of the body; none at its end. After a failure, what came is returned first.

        Args:
            size: The most bytes; what was left before a failure may be more.

        Raises:
            TransportError: The connection failed.
        """
        if self._failure is None:
            try:
                return await self._content.read(size)
            except LIBRARY_ERRORS as error:
                self._failure = self._translate(error)
            if rest := _take_rest(self._content):
                return rest
        raise self._failure


class Transport:
    """The connections of a session: pools for create requests, for status requests, and for downloads.

    Connections for create requests are never old, and connections for downloads never see the key. Requests with the
    key go where the gateway says, and nowhere else: no redirect of theirs is followed here. The engine keeps to
    `Limits.max_connections` before the pools: the poll loop bounds status requests, and `connection_slots` bounds
    create requests and downloads, so that neither starves the other.

    Args:
        gateway: Says what to send, and which part of a response is enough.
        api_key: The key, which is removed from whatever comes.
        settings: The user's settings.
        http: The user's own session, if there is one.

    Attributes:
        gateway: The gateway.
        connection_slots: One slot for each connection that create requests and downloads share. The transport holds
            one for a create request; the downloader holds one for all requests of a download.
    """

    def __init__(self, gateway: Gateway, api_key: str, settings: Settings, http: aiohttp.ClientSession | None) -> None:
        limits = settings.limits
        self.gateway = gateway
        self._key = api_key
        self._key_headers = gateway.headers
        self._base = base = gateway.base
        self._authority = base.raw_authority
        self._timeouts = settings.timeouts
        self._network = settings.network
        self._no_total = aiohttp.ClientTimeout(total=None, sock_connect=settings.timeouts.connect)
        self._download_timeout = attrs.evolve(self._no_total, sock_read=settings.timeouts.status)
        self._guard = AddressGuard(base, settings.network, settings.timeouts.connect)
        self._proxies = ProxyRules()
        self._base_proxy: URL | None = None
        self._given = http
        # our own pools have these as their defaults
        self._foreign: dict[str, Any] = {**PARSER_LIMITS, **_given_proxy(settings.network)} if http else {}
        foreign = {"headers": gateway.headers, "timeout": self._no_total, "raise_for_status": False, **self._foreign}
        self._options: dict[str, Any] = foreign if http else {}
        self._creates = http
        self._statuses = http
        self._elsewhere = http
        self._downloads = http
        self._proxied_downloads = http
        self._status_timeout = SharedTimeout(settings.timeouts.status)
        self._submit_timeout = SharedTimeout(settings.timeouts.submit)
        self.connection_slots = asyncio.Semaphore(limits.max_connections - limits.max_polls_in_flight)

    def open(self) -> None:
        """Make the pools, on the loop that will use them, and read the environment's proxies.

        Raises:
            ConfigurationError: The user's `aiohttp.ClientSession`, or the proxy, cannot be used.
        """
        keep_read_buffers()
        if self._given is None:
            self._open_pools()
        elif self._given.closed:
            raise ConfigurationError("the aiohttp.ClientSession that was passed as http is closed")
        elif self._given.auth is not None:
            raise ConfigurationError("the aiohttp.ClientSession that was passed as http has an auth of its own")

    def _open_pools(self) -> None:
        self._proxies = _find_proxies(self._network)
        proxy = self._base_proxy = self._find_proxy(self._base)
        agent = {"User-Agent": user_agent()}
        always = {**agent, **self.gateway.headers}
        if proxy:  # aiohttp sends what a pool always sends to the proxy, too
            always = agent
            self._options = {"headers": self.gateway.headers}
        timeout = self._no_total
        self._creates = make_pool(pools.CREATE_KEEP_ALIVE, always, timeout, proxy=proxy, connector=LenientConnector)
        self._statuses = make_pool(REPEATABLE_KEEP_ALIVE, always, timeout, proxy=proxy)
        self._elsewhere = make_pool(REPEATABLE_KEEP_ALIVE, agent, timeout)
        self._downloads = make_pool(REPEATABLE_KEEP_ALIVE, agent, timeout, socket_factory=self._guard.open_socket)
        self._proxied_downloads = make_pool(REPEATABLE_KEEP_ALIVE, agent, timeout)

    async def aclose(self) -> None:
        """Close the pools, unless they are the user's."""
        if self._given is None:
            for pool in (self._creates, self._statuses, self._elsewhere, self._downloads, self._proxied_downloads):
                if pool is not None:
                    await pool.close()

    def redact(self, error: ErrorT) -> ErrorT:
        """Remove the API key from an error that was made from a response, which may echo it."""
        return error.redact(self._key)

    def read_refusal(self, response: Response, task_id: str | None = None) -> GatewayError:
        """Return the error for a response other than success, without the API key."""
        return self.redact(self.gateway.read_refusal(response, task_id))

    def create(
        self, request: GatewayRequest, upload: Upload, *, before: Callable[[], Awaitable[None] | None] | None = None
    ) -> Coroutine[Any, Any, Response]:
        """Send one create request.

        Args:
            request: The request.
            upload: Its body.
            before: Called when everything is ready, before the first byte goes out, and awaited if it has to wait.

        Raises:
            TransportError: No response came.
            InvalidRequest: An image changed during the upload, so that the body could not be completed.
            KontextError: The error that `before` raised; nothing was sent.
        """
        return self._post(request, upload, before)

    async def exchange(self, request: GatewayRequest, upload: Upload) -> Response:
        """Send a request that can be repeated: for a price or the balance, or to cancel a task.

        Args:
            request: The request.
            upload: Its body, which may be empty.

        Raises:
            TransportError: No response came.
        """
        return await (self._post(request, upload, None) if upload.length else self.poll(request))

    async def _post(
        self, request: GatewayRequest, upload: Upload, before: Callable[[], Awaitable[None] | None] | None
    ) -> Response:
        options = self._options
        body: WholeBody | Upload = upload
        if upload.whole is not None:  # the headers of all of these are in `options`, or the pool's
            body = WholeBody(upload, upload.whole)
        else:
            options = {**options, "headers": {**request.headers, "Content-Length": str(upload.length)}}
        response: aiohttp.ClientResponse | None = None
        chunks: list[bytes] = []
        async with self.connection_slots:
            if before and (steps := before()):
                await steps
            try:
                with self._submit_timeout:
                    response = await _usable(self._creates).post(
                        request.url, data=body, allow_redirects=False, **options
                    )
                    try:
                        return self._read_now(response) or await self._read(response, chunks)
                    finally:
                        if body is upload:
                            await response.wait_for_close()  # the response may come before the end of the body is sent
            except LIBRARY_ERRORS as error:
                if salvaged := self._salvage(request, response, chunks, error):
                    return salvaged
                failure = self._translate(error, self._timeouts.submit, handed_over=upload.handed_over)
        if isinstance(upload.failure, KontextError):
            raise upload.failure from upload.failure.__cause__
        raise failure

    async def poll(self, request: GatewayRequest) -> Response:
        """Send one status or result request, or another one without a large body. The caller bounds how many.

        Raises:
            TransportError: No response came.
        """
        pool, url, options = self._statuses, request.url, self._options
        if request.headers is not self._key_headers or url.raw_authority != self._authority:
            pool, options = self._prepare(request)
        response: aiohttp.ClientResponse | None = None
        chunks: list[bytes] = []
        try:
            with self._status_timeout:
                send = _usable(pool).request
                response = await send(request.method, url, allow_redirects=False, **options)
                return self._read_now(response) or await self._read(response, chunks)
        except LIBRARY_ERRORS as error:
            if response is not None and (whole := self._salvage(request, response, chunks, error)):
                return whole
            failure = self._translate(error, self._timeouts.status)
        raise failure

    def _prepare(self, request: GatewayRequest) -> tuple[aiohttp.ClientSession | None, dict[str, Any]]:
        """Return the pool and the options of a request that has a body, or that goes to another host than the base's.

        Raises:
            TransportError: The environment's proxy for that host cannot be used.
        """
        options = {**self._options, "headers": request.headers}
        if request.body.length:
            options["data"] = b"".join(request.body.pieces())
        if self._given is not None or request.url.raw_authority == self._authority:
            return self._statuses, options
        try:
            proxy = self._find_proxy(request.url)
        except ConfigurationError as error:
            raise TransportError(str(error), kind=TransportFailure.CONFIGURATION) from None
        if proxy:
            options["proxy"] = proxy
        return self._elsewhere, options

    async def _read(self, response: aiohttp.ClientResponse, chunks: list[bytes]) -> Response:
        """Read a response in full, and release its connection. What has come of a broken one stays in `chunks`."""
        try:
            return self._make_response(response, await _read_all(response, chunks))
        finally:
            response.release()

    def _read_now(self, response: aiohttp.ClientResponse) -> Response | None:
        """Read a response whose body has come together with its head, as nearly all do; None if it has not.

        aiohttp itself closes such a response, and gives its connection back.
        """
        if not response.closed:
            return None
        return self._make_response(response, response.content.read_nowait())

    @asynccontextmanager
    async def download(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[Download]:
        """Open an image's URL, without the key, and follow redirects. The caller holds one of `connection_slots`.

        Raises:
            TransportError: No response came, or the URL leads where it must not lead.
        """
        try:
            target = to_request_url(url)
        except UnusableURL as unusable:
            text = f"the URL is invalid: {unusable}"
            raise TransportError(text, kind=TransportFailure.INVALID_URL) from None
        visited = {target}
        while True:
            response = await self._request_download(target, headers)
            location = response.headers.get("Location") if response.status in REDIRECTS else None
            try:
                if location is None:
                    yield Download(response, self._translate_download)
                    return
            finally:
                response.release()
            target = _next_target(target, location, visited)

    async def _request_download(self, url: URL, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """Send one request of a download, if its address is permitted."""
        try:
            if self._base_proxy is None:  # else the name is the proxy's to look up
                await self._guard.find_home()
            pool = self._downloads
            options: dict[str, Any] = self._foreign
            if self._given is not None:
                await self._guard.check_resolved(url)
            elif proxy := self._find_proxy(url):
                self._guard.check_literal(url)
                pool = self._proxied_downloads
                options = {"proxy": proxy}
            return await _usable(pool).get(
                url,
                headers={"Accept-Encoding": "identity", **headers},
                allow_redirects=False,
                raise_for_status=False,
                read_bufsize=DOWNLOAD_BUFFER,
                timeout=self._download_timeout,
                **options,
            )
        except ConfigurationError as error:  # the proxy's
            failure = TransportError(str(error), kind=TransportFailure.CONFIGURATION)
        except ForbiddenAddress as error:
            failure = TransportError(str(error), kind=TransportFailure.FORBIDDEN_ADDRESS)
        except LIBRARY_ERRORS as error:
            failure = self._translate_download(error)
        raise failure

    def _find_proxy(self, url: URL) -> URL | None:
        """Return the proxy for a URL.

        Raises:
            ConfigurationError: It cannot be used.
        """
        proxy = self._proxies.find(url.scheme, url.raw_host or "", url.port)
        if proxy is None:
            return None
        check_proxy(proxy, f"the environment's proxy for {url.scheme}")
        return URL(proxy)

    def _translate(self, error: Exception, deadline: float, *, handed_over: bool = True) -> TransportError:
        return translate(error, deadline=deadline, secret=self._key, handed_over=handed_over)

    def _translate_download(self, error: Exception) -> TransportError:
        return self._translate(error, self._timeouts.status)

    def _make_response(self, response: aiohttp.ClientResponse, body: bytes) -> Response:
        body = clean_body(body, self._key)
        if response.status == OK:
            return Response(OK, body)
        return Response(
            response.status,
            body,
            self._header(response, "Retry-After"),
            self._header(response, "X-Request-Id"),
            self._header(response, "Location"),
        )

    def _header(self, response: aiohttp.ClientResponse, name: str) -> str | None:
        value = response.headers.get(name)
        return None if value is None else clean_text(value, self._key)

    def _salvage(
        self, request: GatewayRequest, response: aiohttp.ClientResponse | None, chunks: list[bytes], error: Exception
    ) -> Response | None:
        """Return the response that came although its framing is broken; None if what came cannot be read."""
        refused = next(filter(None, map(refused_bytes, chain(error))), b"")
        if response is None:
            found = find_response(refused)
            return found and Response(found[0], clean_body(found[1], self._key))
        body = b"".join([*chunks, _take_rest(response.content)])
        for candidate in (body, body + refused):
            if self.gateway.is_readable(request, response.status, candidate):
                return self._make_response(response, candidate)
        return None


def _find_proxies(network: Network) -> ProxyRules:
    if network.proxy is None:
        return ProxyRules()
    if network.proxy == ENVIRONMENT:
        return ProxyRules.from_variables(find_proxy_variables())
    return ProxyRules.always(network.proxy)


def _given_proxy(network: Network) -> dict[str, URL]:
    """Return the argument for a proxy that the user's settings name."""
    return {} if network.proxy in (None, ENVIRONMENT) else {"proxy": URL(network.proxy)}


def _next_target(current: URL, location: str, visited: set[URL]) -> URL:
    """Return the URL to which a response redirects, and add it to those that were visited.

    Raises:
        TransportError: It must not be followed.
    """
    try:
        target = follow_redirect(current, location)
    except RedirectRefused as refused:
        raise TransportError(str(refused), kind=TransportFailure.REDIRECTS) from None
    except UnusableURL as unusable:
        text = f"it redirects to an invalid URL: {unusable}"
        raise TransportError(text, kind=TransportFailure.REDIRECTS) from None
    if target in visited:
        raise TransportError("its redirects form a loop", kind=TransportFailure.REDIRECTS)
    if len(visited) > MAX_REDIRECTS:
        raise TransportError(f"it redirects more than {MAX_REDIRECTS} times", kind=TransportFailure.REDIRECTS)
    visited.add(target)
    return target


async def _read_all(response: aiohttp.ClientResponse, chunks: list[bytes]) -> bytes:
    """Read a body into `chunks`. Its end may be late only for a moment, once a complete JSON object has come."""
    content = response.content
    size = 0
    while True:
        if content.is_eof():  # most bodies come together with their head
            chunk = content.read_nowait()
        elif chunks and is_whole(response.status, b"".join(chunks)):
            async with asyncio.timeout(GRACE_SECONDS):
                chunk = await content.readany()
        else:
            chunk = await content.readany()
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_RESPONSE_BYTES:
            text = f"the response is larger than {MAX_RESPONSE_BYTES} bytes"
            raise TransportError(text, kind=TransportFailure.PROTOCOL, handed_over=True)


def _take_rest(content: aiohttp.StreamReader) -> bytes:
    """Return the bytes that came before a failure. aiohttp keeps them, and raises the failure instead."""
    return content._read_nowait(-1)  # noqa: SLF001 # there is no public way to them


def user_agent() -> str:
    """Return the value of the ``User-Agent`` header."""
    return f"kontext_async/{__version__} Python/{sys.version_info.major}.{sys.version_info.minor}"


def _usable(pool: aiohttp.ClientSession | None) -> aiohttp.ClientSession:
    if pool is None or pool.closed:
        raise SessionClosed("the connection pool is closed")
    return pool
