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
from typing import TYPE_CHECKING, Any

import aiohttp
import attrs
from attrs import define, field
from yarl import URL

from kontext_async.engine.deadlines import Deadlines
from kontext_async.engine.uploads import Uploads
from kontext_async.errors import ConfigurationError, KontextError, SessionClosed
from kontext_async.protocol import create_url, precharge_url, status_url
from kontext_async.redaction import excerpt, without_query
from kontext_async.version import __version__

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from typing import TypeVar

    from kontext_async.protocol import CreateBody
    from kontext_async.settings import Settings

    ErrorT = TypeVar("ErrorT", bound=KontextError)

__all__ = ["Answer", "RequestLost", "Transport"]

MAX_ANSWER_BYTES = 8 * 1024 * 1024
"""No answer of the API comes near this; a larger one is a fault."""

CREATE_KEEP_ALIVE = 2.0
"""Seconds for which an idle connection may carry a create: a server may just have closed an older one, and then nobody
would know whether it was accepted."""

STATUS_KEEP_ALIVE = 60.0
"""Seconds for which an idle connection may carry a status request, which can be repeated: longer than the gap between
two of them, so that no connection is opened for each."""

DOWNLOAD_BUFFER = 32 * 1024
"""Bytes of a picture that wait to be taken, above which nothing more is received; asyncio may bring 256 KiB at once."""

MAX_REDIRECTS = 5

OK = 200


@define  # frozen, it would take four times as long to make
class Answer:
    """An HTTP answer of the API, read to its end.

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


class Transport:
    """The connections of a session.

    Attributes:
        lane: A place in it stands for one of the connections that creates and downloads share.
        uploads: Opens what creates carry, and bounds how many carry image bytes at once.

    Creates have connections of their own, which are never old, and so have downloads, which never see the key.
    `max_connections` is kept before the pools: the poll loop bounds status requests, `lane` creates and downloads, so
    that neither starves.
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
        self._status_options: dict[str, Any] = foreign if http else {}  # our own pool for them goes by these already
        self._stalls = attrs.evolve(self._no_total, sock_read=settings.timeouts.status)
        self._given = http
        self._creates = http
        self._statuses = http
        self._downloads = http
        self._status_deadlines = Deadlines(settings.timeouts.status)
        self.uploads = Uploads(limits)
        self.lane = asyncio.Semaphore(limits.max_connections - limits.max_polls_in_flight)

    def open(self) -> None:
        """Make the pools. Must be called on the loop that they are used on.

        Raises:
            ConfigurationError: The `aiohttp.ClientSession` that was passed in cannot be used.
        """
        if self._given is None:
            self._creates = self._pool(CREATE_KEEP_ALIVE, {})
            self._statuses = self._pool(STATUS_KEEP_ALIVE, self._headers)
            self._downloads = self._pool(STATUS_KEEP_ALIVE, {})
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

    def told(self, error: ErrorT) -> ErrorT:
        """An error that was made from an answer, without the API key, should the answer have echoed it."""
        return error.redacted(self._key)

    async def create(self, body: CreateBody, *, before: Callable[[], Awaitable[None]] | None = None) -> Answer:
        """Send one create request.

        Args:
            body: What is sent.
            before: Awaited when everything is ready, and before the first byte goes out.

        Raises:
            RequestLost: No answer came.
            InvalidRequest: An image changed while it was sent, and so the body could not be completed.
            KontextError: What `before` raised; nothing was sent.
        """
        return await self._post(self._create_url, body, before)

    async def precharge(self, body: CreateBody) -> Answer:
        """Ask what a create with this body would cost. It can be repeated.

        Raises:
            RequestLost: No answer came.
        """
        return await self._post(self._precharge_url, body, None)

    async def _post(self, url: URL, body: CreateBody, before: Callable[[], Awaitable[None]] | None) -> Answer:
        upload = self.uploads.sending(body)
        headers = {**self._headers, "Content-Type": "application/json", "Content-Length": str(body.length)}
        async with self.lane:
            if before:
                await before()
            try:
                async with (
                    asyncio.timeout(self._timeouts.submit),
                    self._pool_for_creates.post(
                        url,
                        data=upload,
                        headers=headers,
                        allow_redirects=False,
                        raise_for_status=False,
                        timeout=self._no_total,
                    ) as response,
                ):
                    return _answer(response, await _whole(response.content))
            except (aiohttp.ClientError, OSError) as error:
                if isinstance(upload.failure, KontextError):
                    raise upload.failure from upload.failure.__cause__
                raise RequestLost(_reason(error, self._timeouts.submit), handed_over=upload.handed_over) from error

    async def status(self, task_id: str) -> Answer:
        """Send one status request. How many go out at once is for the caller to bound.

        Raises:
            RequestLost: No answer came.
        """
        url = URL(status_url(self._base_url, task_id), encoded=True)
        try:
            with self._status_deadlines:
                response = await _usable(self._statuses).get(url, allow_redirects=False, **self._status_options)
                content = response.content
                try:  # most bodies have come together with their head
                    return _answer(response, content.read_nowait() if content.is_eof() else await _whole(content))
                finally:
                    response.release()
        except (aiohttp.ClientError, OSError) as error:
            raise RequestLost(_reason(error, self._timeouts.status), handed_over=True) from error

    @asynccontextmanager
    async def download(self, url: str, headers: Mapping[str, str]) -> AsyncIterator[aiohttp.ClientResponse]:
        """Open a picture's URL, with a place in `lane`. The key goes neither there nor where it redirects to.

        Raises:
            RequestLost: No answer came, or it broke off while the body was read inside.
        """
        try:
            async with _usable(self._downloads).get(
                url,
                headers={"Accept": "image/*,*/*;q=0.5", "Accept-Encoding": "identity", **headers},
                max_redirects=MAX_REDIRECTS,
                raise_for_status=False,
                read_bufsize=DOWNLOAD_BUFFER,
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

    def _pool(self, keep_alive: float, headers: Mapping[str, str]) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=keep_alive),
            cookie_jar=aiohttp.DummyCookieJar(),
            headers={"User-Agent": user_agent(), **headers},
            timeout=self._no_total,
        )


def _answer(response: aiohttp.ClientResponse, body: bytes) -> Answer:
    if response.status == OK:
        return Answer(OK, body)
    headers = response.headers
    return Answer(response.status, body, headers.get("Retry-After"), headers.get("X-Request-Id"))


async def _whole(content: aiohttp.StreamReader) -> bytes:
    chunks: list[bytes] = []
    size = 0
    while chunk := await content.readany():
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_ANSWER_BYTES:
            raise aiohttp.ClientPayloadError(f"the answer is larger than {MAX_ANSWER_BYTES} bytes")
    return b"".join(chunks)


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
