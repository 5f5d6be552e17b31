"""HTTP over aiohttp: the only module that knows it, and the boundary at which its errors are translated.

aiohttp's own total timeout also counts the wait for a connection, so none is set: what bounds the connections stands
before the pool, and a deadline counts from when a request has its place (DESIGN.md, "Paying once").
"""

from __future__ import annotations

import asyncio
import os
import ssl
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import aiohttp
import attrs
from attrs import field, frozen
from yarl import URL

from kontext_async.errors import ConfigurationError, SessionClosed
from kontext_async.protocol import create_url, status_url
from kontext_async.redaction import excerpt, without_query
from kontext_async.version import __version__

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from kontext_async.protocol import CreateBody
    from kontext_async.settings import Settings

__all__ = ["Answer", "RequestLost", "Transport"]

MAX_ANSWER_BYTES = 8 * 1024 * 1024
"""No answer of the API comes near this; a larger one is a fault."""

CREATE_KEEP_ALIVE = 2.0
"""Seconds for which an idle connection may carry a create: a server may just have closed an older one, and then nobody
would know whether it was accepted."""

STATUS_KEEP_ALIVE = 60.0
"""Seconds for which an idle connection may carry a status request, which can be repeated: longer than the gap between
two of them, so that no connection is opened for each."""

MAX_REDIRECTS = 5


@frozen(kw_only=True)
class Answer:
    """An HTTP answer of the API, read to its end.

    Attributes:
        status: The HTTP status.
        body: The body; the API key, should it be echoed, is blotted out.
        retry_after: The ``Retry-After`` header.
        request_id: The ``X-Request-Id`` header.
    """

    status: int
    body: bytes = field(repr=False)
    retry_after: str | None = None
    request_id: str | None = None

    @property
    def ok(self) -> bool:
        """Whether the HTTP status says success."""
        return 200 <= self.status < 300  # noqa: PLR2004 # that is what 2xx means


class RequestLost(Exception):
    """A request without an answer. Internal: becomes an error of the tree where it is known what it means.

    Attributes:
        handed_over: Whether the last byte of the body was handed to the socket.
    """

    def __init__(self, reason: str, *, handed_over: bool) -> None:
        super().__init__(reason)
        self.handed_over = handed_over


class _Upload:
    """Sends a body piece by piece, and knows whether its last byte has been handed over."""

    def __init__(self, body: CreateBody) -> None:
        self._body = body
        self.handed_over = False

    async def stream(self) -> AsyncIterator[bytes]:
        remaining = self._body.length
        for piece in self._body.pieces():
            remaining -= len(piece)
            self.handed_over = not remaining  # before it is yielded: once it is, it may be on its way
            yield piece
            if remaining:
                await asyncio.sleep(0)  # a fast socket never makes aiohttp wait, and would hold the loop


class Transport:
    """The connections of a session.

    Attributes:
        lane: A place in it stands for one of the connections that creates and downloads share.

    Creates have connections of their own, which are never old. `max_connections` is kept by two lanes before the
    pool: status requests in one, creates and downloads in the other, so that neither starves.
    """

    def __init__(self, api_key: str, base_url: str, settings: Settings, http: aiohttp.ClientSession | None) -> None:
        limits = settings.limits
        self._key = api_key.encode()
        self._headers = {"Authorization": f"Bearer {api_key}", "Accept": "application/json"}
        self._create_url = URL(create_url(base_url), encoded=True)
        self._base_url = base_url
        self._timeouts = settings.timeouts
        self._no_total = aiohttp.ClientTimeout(total=None, sock_connect=settings.timeouts.connect)
        self._stalls = attrs.evolve(self._no_total, sock_read=settings.timeouts.status)
        self._given = http
        self._creates = http
        self._others = http
        self._status_lane = asyncio.Semaphore(limits.max_polls_in_flight)
        self.lane = asyncio.Semaphore(limits.max_connections - limits.max_polls_in_flight)

    def open(self) -> None:
        """Make the pools. Must be called on the loop that they are used on.

        Raises:
            ConfigurationError: The `aiohttp.ClientSession` that was passed in cannot be used.
        """
        if self._given is None:
            self._creates = self._pool(CREATE_KEEP_ALIVE)
            self._others = self._pool(STATUS_KEEP_ALIVE)
        elif self._given.closed:
            raise ConfigurationError("the aiohttp.ClientSession that was passed as http is closed")
        elif self._given.auth is not None:
            raise ConfigurationError("the aiohttp.ClientSession that was passed as http has an auth of its own")

    async def aclose(self) -> None:
        """Close the pools, unless they are the user's."""
        if self._given is None:
            for pool in (self._creates, self._others):
                if pool is not None:
                    await pool.close()

    async def create(self, body: CreateBody) -> Answer:
        """Send one create request.

        Raises:
            RequestLost: No answer came.
        """
        upload = _Upload(body)
        headers = {**self._headers, "Content-Type": "application/json", "Content-Length": str(body.length)}
        async with self.lane:
            try:
                async with (
                    asyncio.timeout(self._timeouts.submit),
                    self._pool_for_creates.post(
                        self._create_url,
                        data=upload.stream(),
                        headers=headers,
                        allow_redirects=False,
                        raise_for_status=False,
                        timeout=self._no_total,
                    ) as response,
                ):
                    return await self._read(response)
            except (aiohttp.ClientError, OSError) as error:
                raise RequestLost(_reason(error, self._timeouts.submit), handed_over=upload.handed_over) from error

    async def status(self, task_id: str) -> Answer:
        """Send one status request.

        Raises:
            RequestLost: No answer came.
        """
        url = URL(status_url(self._base_url, task_id), encoded=True)
        async with self._status_lane:
            try:
                async with (
                    asyncio.timeout(self._timeouts.status),
                    self._pool_for_others.get(
                        url,
                        headers=self._headers,
                        allow_redirects=False,
                        raise_for_status=False,
                        timeout=self._no_total,
                    ) as response,
                ):
                    return await self._read(response)
            except (aiohttp.ClientError, OSError) as error:
                raise RequestLost(_reason(error, self._timeouts.status), handed_over=True) from error

    @asynccontextmanager
    async def download(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open a picture's URL, with a place in `lane`. The key goes neither there nor where it redirects to.

        Raises:
            RequestLost: No answer came, or it broke off while the body was read inside.
        """
        try:
            async with self._pool_for_others.get(
                url,
                headers={"Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity", **headers},
                max_redirects=MAX_REDIRECTS,
                raise_for_status=False,
                timeout=self._stalls,
            ) as response:
                yield response
        except (
            aiohttp.ClientError,
            TimeoutError,
            ConnectionError,
            ssl.SSLError,
        ) as error:  # a full disk is no lost request
            raise RequestLost(_reason(error, self._timeouts.status), handed_over=True) from error

    @property
    def _pool_for_creates(self) -> aiohttp.ClientSession:
        return _usable(self._creates)

    @property
    def _pool_for_others(self) -> aiohttp.ClientSession:
        return _usable(self._others)

    def _pool(self, keep_alive: float) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=keep_alive),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": user_agent()},
        )

    async def _read(self, response: aiohttp.ClientResponse) -> Answer:
        chunks: list[bytes] = []
        size = 0
        while chunk := await response.content.readany():
            chunks.append(chunk)
            size += len(chunk)
            if size > MAX_ANSWER_BYTES:
                raise aiohttp.ClientPayloadError(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
        body = b"".join(chunks)
        return Answer(
            status=response.status,
            body=body.replace(self._key, b"***") if self._key in body else body,
            retry_after=response.headers.get("Retry-After"),
            request_id=response.headers.get("X-Request-Id"),
        )


def user_agent() -> str:
    """What this client calls itself."""
    return f"kontext_async/{__version__} Python/{sys.version_info.major}.{sys.version_info.minor}"


def _usable(pool: aiohttp.ClientSession | None) -> aiohttp.ClientSession:
    if pool is None or pool.closed:
        raise SessionClosed("the connection pool is closed")
    return pool


def _reason(error: Exception, deadline: float) -> str:
    """What went wrong, in bounded words without a query, which may hold a signature."""
    if isinstance(error, aiohttp.InvalidURL):
        return f"the URL cannot be used: {without_query(str(error.url))}"
    if isinstance(error, aiohttp.ClientResponseError):
        return excerpt(f"the answer is not HTTP that can be read: {type(error).__name__}: {error.message}", 200)
    if isinstance(error, TimeoutError) and not str(error):
        return f"no answer within {deadline:g} s"
    detail = str(error) or os.strerror(getattr(error, "errno", 0) or 0)
    return excerpt(f"{type(error).__name__}: {detail}", 200)
