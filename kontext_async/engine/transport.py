"""HTTP over aiohttp. No other module of the engine knows aiohttp, and its errors are translated here.

aiohttp's own total timeout also counts the wait for a connection, so this module sets none. The engine bounds
connections before the pool instead, and a deadline starts when a request has its place (ARCHITECTURE.md, "Paying
once").
"""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import aiohttp
import attrs
from attrs import define, field
from yarl import URL

from kontext_async.engine.shared_timeout import SharedTimeout
from kontext_async.errors import ConfigurationError, KontextError, SessionClosed
from kontext_async.protocol import create_url, precharge_url, status_url
from kontext_async.redaction import strip_query, truncate
from kontext_async.version import __version__

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from typing import TypeVar

    from kontext_async.engine.uploads import Upload
    from kontext_async.settings import Settings

    ErrorT = TypeVar("ErrorT", bound=KontextError)

__all__ = ["Response", "Transport", "TransportError"]

MAX_RESPONSE_BYTES = 8 * 1024 * 1024
"""The largest response of the API that is read. None comes near it."""

CREATE_KEEP_ALIVE = 2.0
"""Seconds for which an idle connection may carry a create request. A server may just have closed an older connection,
and then the outcome of the request is unknown."""

STATUS_KEEP_ALIVE = 60.0
"""Seconds for which an idle connection may carry a status request, which can be repeated. This is longer than the gap
between two polls, so that a poll does not need a new connection."""

DOWNLOAD_BUFFER = 32 * 1024
"""Bytes of a download that may wait in the buffer before aiohttp stops reading; asyncio may deliver 256 KiB at once."""

MAX_REDIRECTS = 5

OK = HTTPStatus.OK.value


@define  # a frozen class would take four times as long to create
class Response:
    """A complete HTTP response of the API.

    Attributes:
        status: The HTTP status.
        body: The body.
        retry_after: The ``Retry-After`` header.
        request_id: The ``X-Request-Id`` header.
    """

    status: int
    body: bytes = field(repr=False)
    retry_after: str | None = None
    request_id: str | None = None

    @property
    def ok(self) -> bool:
        """True for a 2xx status."""
        return 200 <= self.status < 300  # noqa: PLR2004 # that is what 2xx means


class TransportError(Exception):
    """A request without a response. Internal: the callers turn it into an error of the tree.

    Attributes:
        handed_over: True if the last byte of the body was handed to the socket.
    """

    def __init__(self, reason: str, *, handed_over: bool) -> None:
        super().__init__(reason)
        self.handed_over = handed_over


class Transport:
    """The connections of a session: one pool for create requests, one for status requests, one for downloads.

    Connections for create requests are never old, and connections for downloads never see the key. The engine keeps to
    `Limits.max_connections` before the pools: the poll loop bounds status requests, and `connection_slots` bounds
    create requests and downloads, so that neither starves the other.

    Attributes:
        connection_slots: One slot for each connection that create requests and downloads share. The transport holds
            one for a create request; the downloader holds one for all requests of a download.
    """

    def __init__(self, api_key: str, base_url: str, settings: Settings, http: aiohttp.ClientSession | None) -> None:
        limits = settings.limits
        self._key = api_key
        self._headers = {"Authorization": f"Bearer {api_key}", "Accept": "application/json"}
        self._create_url = URL(create_url(base_url), encoded=True)
        self._precharge_url = URL(precharge_url(base_url), encoded=True)
        self._base_url = base_url
        self._timeouts = settings.timeouts
        self._no_total = aiohttp.ClientTimeout(total=None, sock_connect=settings.timeouts.connect)
        foreign = {"headers": self._headers, "timeout": self._no_total, "raise_for_status": False}
        self._status_options: dict[str, Any] = foreign if http else {}  # our own pool has these as its defaults
        self._download_timeout = attrs.evolve(self._no_total, sock_read=settings.timeouts.status)
        self._given = http
        self._creates = http
        self._statuses = http
        self._downloads = http
        self._status_timeout = SharedTimeout(settings.timeouts.status)
        self.connection_slots = asyncio.Semaphore(limits.max_connections - limits.max_polls_in_flight)

    def open(self) -> None:
        """Make the pools, on the loop that will use them.

        Raises:
            ConfigurationError: The user's `aiohttp.ClientSession` cannot be used.
        """
        if self._given is None:
            self._creates = self._make_pool(CREATE_KEEP_ALIVE, {})
            self._statuses = self._make_pool(STATUS_KEEP_ALIVE, self._headers)
            self._downloads = self._make_pool(STATUS_KEEP_ALIVE, {})
        elif self._given.closed:
            raise ConfigurationError("the aiohttp.ClientSession that was passed as http is closed")
        elif self._given.auth is not None:
            raise ConfigurationError("the aiohttp.ClientSession that was passed as http has an auth of its own")

    async def aclose(self) -> None:
        """Close the pools, unless they are the user's."""
        if self._given is None:
            for pool in (self._creates, self._statuses, self._downloads):
                if pool is not None:
                    await pool.close()

    def redact(self, error: ErrorT) -> ErrorT:
        """Remove the API key from an error that was made from a response, which may echo it."""
        return error.redact(self._key)

    async def create(self, upload: Upload, *, before: Callable[[], Awaitable[None]] | None = None) -> Response:
        """Send one create request.

        Args:
            upload: The body.
            before: Awaited when everything is ready, before the first byte goes out.

        Raises:
            TransportError: No response came.
            InvalidRequest: An image changed during the upload, so that the body could not be completed.
            KontextError: The error that `before` raised; nothing was sent.
        """
        return await self._post(self._create_url, upload, before)

    async def precharge(self, upload: Upload) -> Response:
        """Ask for the price of a create request with this body. It can be repeated.

        Raises:
            TransportError: No response came.
        """
        return await self._post(self._precharge_url, upload, None)

    async def _post(self, url: URL, upload: Upload, before: Callable[[], Awaitable[None]] | None) -> Response:
        headers = {**self._headers, "Content-Type": "application/json", "Content-Length": str(upload.length)}
        async with self.connection_slots:
            if before:
                await before()
            try:
                async with (
                    asyncio.timeout(self._timeouts.submit),
                    _usable(self._creates).post(
                        url,
                        data=upload,
                        headers=headers,
                        allow_redirects=False,
                        raise_for_status=False,
                        timeout=self._no_total,
                    ) as response,
                ):
                    return _make_response(response, await _read_all(response.content))
            except (aiohttp.ClientError, OSError) as error:
                if isinstance(upload.failure, KontextError):
                    raise upload.failure from upload.failure.__cause__
                raise TransportError(_reason(error, self._timeouts.submit), handed_over=upload.handed_over) from error

    async def status(self, task_id: str) -> Response:
        """Send one status request. The caller bounds how many are in flight.

        Raises:
            TransportError: No response came.
        """
        url = URL(status_url(self._base_url, task_id), encoded=True)
        try:
            with self._status_timeout:
                response = await _usable(self._statuses).get(url, allow_redirects=False, **self._status_options)
                content = response.content
                try:  # most bodies come together with their head
                    return _make_response(
                        response, content.read_nowait() if content.is_eof() else await _read_all(content)
                    )
                finally:
                    response.release()
        except (aiohttp.ClientError, OSError) as error:
            raise TransportError(_reason(error, self._timeouts.status), handed_over=True) from error

    @asynccontextmanager
    async def download(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open an image's URL, without the key. The caller holds one of `connection_slots`.

        Raises:
            TransportError: No response came, or the connection failed while the caller read the body.
        """
        try:
            async with _usable(self._downloads).get(
                url,
                headers={"Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity", **headers},
                max_redirects=MAX_REDIRECTS,
                raise_for_status=False,
                read_bufsize=DOWNLOAD_BUFFER,
                timeout=self._download_timeout,
            ) as response:
                yield response
        except (
            aiohttp.ClientError,
            TimeoutError,
            ConnectionError,
            ssl.SSLError,
        ) as error:  # other OSErrors, such as a full disk, are the caller's
            raise TransportError(_reason(error, self._timeouts.status), handed_over=True) from error

    def _make_pool(self, keep_alive: float, headers: Mapping[str, str]) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=keep_alive),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": user_agent(), **headers},
            timeout=self._no_total,
        )


def _make_response(response: aiohttp.ClientResponse, body: bytes) -> Response:
    if response.status == OK:
        return Response(OK, body)
    headers = response.headers
    return Response(response.status, body, headers.get("Retry-After"), headers.get("X-Request-Id"))


async def _read_all(content: aiohttp.StreamReader) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while chunk := await content.readany():
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_RESPONSE_BYTES:
            raise aiohttp.ClientPayloadError(f"the response is larger than {MAX_RESPONSE_BYTES} bytes")
    return b"".join(chunks)


def user_agent() -> str:
    """Return the value of the ``User-Agent`` header."""
    return f"kontext_async/{__version__} Python/{sys.version_info.major}.{sys.version_info.minor}"


def _usable(pool: aiohttp.ClientSession | None) -> aiohttp.ClientSession:
    if pool is None or pool.closed:
        raise SessionClosed("the connection pool is closed")
    return pool


def _reason(error: Exception, deadline: float) -> str:
    """Describe a failure in bounded text, without URL queries, which may contain a signature."""
    if isinstance(error, aiohttp.InvalidURL):
        return f"the URL is invalid: {strip_query(str(error.url))}"
    if isinstance(error, aiohttp.ClientResponseError):
        return truncate(f"the response is not valid HTTP: {type(error).__name__}: {error.message}", 200)
    if isinstance(error, TimeoutError) and not str(error):
        return f"no response within {deadline:g} s"
    detail = str(error) or os.strerror(getattr(error, "errno", 0) or 0)
    return truncate(f"{type(error).__name__}: {detail}", 200)
