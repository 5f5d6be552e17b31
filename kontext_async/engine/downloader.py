"""Downloads images: streamed, resumed after interruptions, verified, and renamed into place when they are complete."""

from __future__ import annotations

import re
from contextlib import contextmanager
from http import HTTPStatus
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from attrs import define, field

from kontext_async.decisions.resend import backoff
from kontext_async.engine.clock import cancel_at, sleep_until
from kontext_async.engine.sinks import FileSink, MemorySink, Sink
from kontext_async.engine.transport import TransportError
from kontext_async.errors import DownloadFailed, KontextError
from kontext_async.events import Downloaded
from kontext_async.images import detect_format, is_complete
from kontext_async.redaction import strip_query

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import aiohttp

    from kontext_async.engine.context import Context
    from kontext_async.engine.poll_loop import PollLoop
    from kontext_async.engine.transport import Transport
    from kontext_async.models import GeneratedImage

__all__ = ["Downloader"]

READ_SIZE = 64 * 1024
"""The most bytes to take from the buffer at once."""

WRITERS = 16
"""Threads that write images. More take memory, and make no disk faster."""

EXTENSIONS = {"jpeg": (".jpg", ".jpeg"), "png": (".png",), "webp": (".webp",), "gif": (".gif",)}
EXPIRED = frozenset({HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND, HTTPStatus.GONE})
TRANSIENT = frozenset({HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS})


class _Interrupted(Exception):
    """The image is incomplete; another attempt may complete it."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


class _Expired(_Interrupted):
    """The URL no longer leads to the image."""


@define
class _Fetch:
    """One image that is being downloaded.

    Attributes:
        image: The image.
        sink: Where its bytes go.
        url: The current URL.
        validator: The version that the sink holds a part of, for ``If-Range``.
        reached: The most bytes that the sink ever held.
        attempts: Consecutive attempts that brought nothing more.
        refreshed: True once a fresh URL was requested.
    """

    image: GeneratedImage
    sink: Sink
    url: str
    validator: str | None = field(default=None, init=False)
    reached: int = field(default=0, init=False)
    attempts: int = field(default=0, init=False)
    refreshed: bool = field(default=False, init=False)

    def headers(self) -> dict[str, str]:
        """Return the headers that request the rest only, if the download can be resumed."""
        if self.sink.size and self.validator:
            return {"Range": f"bytes={self.sink.size}-", "If-Range": self.validator}
        return {}

    def failed(self, reason: str, status: int | None = None) -> DownloadFailed:
        """Make the error that ends the download."""
        return DownloadFailed(url=strip_query(self.url), reason=reason, status=status, task_id=self.image.task_id)


class Downloader:
    """Downloads the images of a session."""

    def __init__(self, transport: Transport, poll_loop: PollLoop, context: Context) -> None:
        self._transport = transport
        self._poll_loop = poll_loop
        settings = context.settings
        self._timeout = settings.timeouts.download
        self._max_bytes = settings.limits.max_download_bytes
        self._retries = settings.retries
        self._clock = context.clock
        self._hub = context.hub
        self._random = context.random
        self._writers = anyio.CapacityLimiter(WRITERS)

    async def read(self, image: GeneratedImage) -> bytes:
        """Download an image into memory.

        Raises:
            DownloadFailed: The download failed.
        """
        sink = MemorySink()
        await self._fetch(image, sink)
        self._report(image, None, sink)
        return sink.data

    async def save(self, image: GeneratedImage, path: Path, *, place: int | None = None, durable: bool = False) -> Path:
        """Download an image into a file, and replace an existing one. The extension is adapted to the format.

        Args:
            image: The image.
            path: The file, or an existing directory, in which the file is named after the task.
            place: The image's place among several of one generation; it is appended to the name.
            durable: Flush the file to disk before it takes its name.

        Returns:
            The path of the file.

        Raises:
            DownloadFailed: The download failed, or the file cannot be written.
        """
        if await anyio.to_thread.run_sync(path.is_dir):
            path /= re.sub(r"[^A-Za-z0-9_-]", "_", image.task_id or "image")
        if place is not None:
            path = path.with_name(f"{path.stem}-{place}{path.suffix}")
        sink = FileSink(path.parent, path.name, durable=durable, writers=self._writers)
        try:
            with _translate_disk_errors(image):
                image_format = await self._fetch(image, sink)
                target = adapt_extension(path, image_format)
                await sink.commit(target)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await sink.discard()
            raise
        self._report(image, target, sink)
        return target

    async def _fetch(self, image: GeneratedImage, sink: Sink) -> str:
        """Stream an image into `sink`, and return its format."""
        fetch = _Fetch(image, sink, image.url)
        if not strip_query(image.url).startswith(("http://", "https://")):
            raise fetch.failed("it is not an http(s) URL")
        async with self._transport.connection_slots:
            with cancel_at(self._clock, self._clock.time() + self._timeout):
                return await self._fetch_until_complete(fetch)
        raise fetch.failed(f"it was not finished within {self._timeout:g} s")

    async def _fetch_until_complete(self, fetch: _Fetch) -> str:
        while True:
            try:
                await self._stream(fetch)
                return await _verify(fetch.sink)
            except _Expired as expired:
                if fetch.refreshed:
                    raise fetch.failed(str(expired), expired.status) from None
                await self._refresh(fetch, expired)
            except (_Interrupted, TransportError) as cut:
                fetch.attempts = 1 if fetch.sink.size > fetch.reached else fetch.attempts + 1
                fetch.reached = max(fetch.reached, fetch.sink.size)
                if fetch.attempts >= self._retries.attempts:
                    raise fetch.failed(str(cut), getattr(cut, "status", None)) from cut.__cause__
                pause = backoff(fetch.attempts, self._retries, self._random.random())
                await sleep_until(self._clock, self._clock.time() + pause)

    async def _stream(self, fetch: _Fetch) -> None:
        """Send one request and append its body to the sink."""
        async with self._transport.download(fetch.url, fetch.headers()) as response:
            await self._begin(fetch, response)
            while chunk := await response.content.read(READ_SIZE):
                if fetch.sink.size + len(chunk) > self._max_bytes:
                    raise fetch.failed(f"it is larger than {self._max_bytes} bytes")
                await fetch.sink.write(chunk)

    async def _begin(self, fetch: _Fetch, response: aiohttp.ClientResponse) -> None:
        """Check the head of a response, and prepare the sink for its body."""
        status = response.status
        if status in EXPIRED:
            raise _Expired(f"the server responded {status}", status)
        if status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in TRANSIENT:
            raise _Interrupted(f"the server responded {status}", status)
        begun = f"bytes {fetch.sink.size}-"
        if status == HTTPStatus.PARTIAL_CONTENT and response.headers.get("Content-Range", "").startswith(begun):
            return
        await fetch.sink.restart()
        if status in (HTTPStatus.PARTIAL_CONTENT, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE):
            fetch.validator = None
            raise _Interrupted("the server did not send the requested range", status)
        if status != HTTPStatus.OK:
            raise fetch.failed(f"the server responded {status}", status)
        if (response.content_length or 0) > self._max_bytes:
            raise fetch.failed(f"it is larger than {self._max_bytes} bytes")
        fetch.validator = _validator(response)

    async def _refresh(self, fetch: _Fetch, expired: _Expired) -> None:
        """Poll the task once more for a fresh URL."""
        fetch.refreshed = True
        image = fetch.image
        if image.task_id is None:
            raise fetch.failed(f"{expired}, and its task is unknown", expired.status)
        try:
            status = await self._poll_loop.fetch_status(image.task_id)
        except KontextError as error:
            raise fetch.failed(f"{expired}, and there is no fresh URL: {error}", expired.status) from error
        fresh = _same_image(image, status.images)
        if fresh is None:
            raise fetch.failed(f"{expired}, and its task no longer lists the image", expired.status)
        fetch.url = fresh.url
        fetch.validator = None
        await fetch.sink.restart()

    def _report(self, image: GeneratedImage, path: Path | None, sink: Sink) -> None:
        now = self._clock.utcnow()
        self._hub.emit(Downloaded(at=now, task_id=image.task_id, image=image, path=path, size=sink.size))


def adapt_extension(path: Path, image_format: str) -> Path:
    """Return `path` with an extension that fits the image's format.

    The extension of another image format is replaced; any other suffix belongs to the name.
    """
    fitting = EXTENSIONS[image_format]
    suffix = path.suffix.lower()
    if suffix in fitting:
        return path
    if any(suffix in others for others in EXTENSIONS.values()):
        return path.with_suffix(fitting[0])
    return path.with_name(path.name + fitting[0])


async def _verify(sink: Sink) -> str:
    """Return the format of a downloaded image. Discard anything else, because it cannot be resumed."""
    image_format = detect_format(sink.head)
    if image_format and is_complete(image_format, sink.tail):
        return image_format
    reason = "the image is truncated" if image_format else "it is not an image" if sink.size else "it is empty"
    await sink.restart()
    raise _Interrupted(reason)


def _validator(response: aiohttp.ClientResponse) -> str | None:
    """Return the validator for ``If-Range``: a strong entity tag, or the date (RFC 9110, section 13.1.5)."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified")


def _same_image(image: GeneratedImage, candidates: tuple[GeneratedImage, ...]) -> GeneratedImage | None:
    """Find `image` among those with fresh URLs: by its job, by its path, or because there is only one."""
    for candidate in candidates:
        if image.job_id is not None and candidate.job_id == image.job_id:
            return candidate
    for candidate in candidates:
        if strip_query(candidate.url) == strip_query(image.url):
            return candidate
    return candidates[0] if len(candidates) == 1 else None


@contextmanager
def _translate_disk_errors(image: GeneratedImage) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = f"the file cannot be written: {error}"
        raise DownloadFailed(url=strip_query(image.url), reason=reason, task_id=image.task_id) from error
