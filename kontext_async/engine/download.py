"""Fetches pictures: streamed, resumed where it was cut, verified, and put in their place only when they are whole."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread
from attrs import define, field

from kontext_async.decisions.resend import backoff
from kontext_async.engine.clock import cancelled_at, sleep_until
from kontext_async.engine.sinks import FileSink, MemorySink, Sink
from kontext_async.engine.transport import RequestLost
from kontext_async.errors import DownloadFailed, KontextError
from kontext_async.events import Downloaded
from kontext_async.images import is_whole, kind_of
from kontext_async.redaction import without_query

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import aiohttp

    from kontext_async.engine.context import Context
    from kontext_async.engine.poll_loop import PollLoop
    from kontext_async.engine.transport import Transport
    from kontext_async.models import GeneratedImage

__all__ = ["Downloader"]

READ = 64 * 1024
"""Bytes of what has come that are taken at once."""

WRITERS = 16
"""Threads that write pictures: more take memory, and make no disk faster."""

EXTENSIONS = {"jpeg": (".jpg", ".jpeg"), "png": (".png",), "webp": (".webp",), "gif": (".gif",)}
EXPIRED = frozenset({403, 404, 410})
PASSING = frozenset({408, 425, 429})
OK, PARTIAL, NOT_SATISFIABLE, SERVER_ERRORS = 200, 206, 416, 500


class _Interrupted(Exception):
    """What came is not the whole picture; another attempt may bring it."""

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.status = status


class _Expired(_Interrupted):
    """The URL does not lead to the picture any more."""


@define
class _Fetch:
    """One picture being fetched.

    Attributes:
        image: Which one.
        sink: Where it goes.
        url: Where it is fetched from at present.
        validator: What identifies the version that was begun, for ``If-Range``.
        reached: The most bytes that there ever were of it.
        attempts: Attempts that brought nothing more, one after the other.
        refreshed: Whether a fresh URL was asked for.
    """

    image: GeneratedImage
    sink: Sink
    url: str
    validator: str | None = field(default=None, init=False)
    reached: int = field(default=0, init=False)
    attempts: int = field(default=0, init=False)
    refreshed: bool = field(default=False, init=False)

    def headers(self) -> dict[str, str]:
        """What asks for the rest only, where there is something that can be continued."""
        if self.sink.size and self.validator:
            return {"Range": f"bytes={self.sink.size}-", "If-Range": self.validator}
        return {}

    def failed(self, reason: str, status: int | None = None) -> DownloadFailed:
        """The error that ends it."""
        return DownloadFailed(url=without_query(self.url), reason=reason, status=status, task_id=self.image.task_id)


class Downloader:
    """Fetches the pictures of a session."""

    def __init__(
        self,
        transport: Transport,
        poll_loop: PollLoop,
        context: Context,
    ) -> None:
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
        """A picture's bytes.

        Raises:
            DownloadFailed: It could not be fetched.
        """
        sink = MemorySink()
        await self._fetch(image, sink)
        self._report(image, None, sink)
        return sink.data

    async def save(self, image: GeneratedImage, path: Path, *, durable: bool = False) -> Path:
        """A picture as a file; one that is there is replaced. The extension is made to fit what came.

        Args:
            image: Which one.
            path: The file, or a directory that exists, in which it is named after its task.
            durable: Whether its bytes must be on the disk before it takes its name.

        Returns:
            Where it is.

        Raises:
            DownloadFailed: It could not be fetched, or not be written.
        """
        if await anyio.to_thread.run_sync(path.is_dir):
            path /= re.sub(r"[^A-Za-z0-9_-]", "_", image.task_id or "picture")
        sink = FileSink(path.parent, path.name, durable=durable, writers=self._writers)
        try:
            with _disk_errors(image):
                kind = await self._fetch(image, sink)
                target = fitting_path(path, kind)
                await sink.commit(target)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await sink.discard()
            raise
        self._report(image, target, sink)
        return target

    async def _fetch(self, image: GeneratedImage, sink: Sink) -> str:
        """Stream a picture into `sink`, and say of which kind it is."""
        fetch = _Fetch(image, sink, image.url)
        if not without_query(image.url).startswith(("http://", "https://")):
            raise fetch.failed("it is not an http(s) URL")
        async with self._transport.lane:
            with cancelled_at(self._clock, self._clock.time() + self._timeout) as scope:
                return await self._fetch_until_whole(fetch)
        if scope.cancelled_caught:
            raise fetch.failed(f"it was not finished within {self._timeout:g} s")
        raise AssertionError("unreachable: the scope returns, raises, or was cancelled")

    async def _fetch_until_whole(self, fetch: _Fetch) -> str:
        while True:
            try:
                await self._stream(fetch)
                return await _verified(fetch.sink)
            except _Expired as expired:
                if fetch.refreshed:
                    raise fetch.failed(str(expired), expired.status) from None
                await self._refresh(fetch, expired)
            except (_Interrupted, RequestLost) as cut:
                fetch.attempts = 1 if fetch.sink.size > fetch.reached else fetch.attempts + 1
                fetch.reached = max(fetch.reached, fetch.sink.size)
                if fetch.attempts >= self._retries.attempts:
                    raise fetch.failed(str(cut), getattr(cut, "status", None)) from cut.__cause__
                pause = backoff(fetch.attempts, self._retries, self._random.random())
                await sleep_until(self._clock, self._clock.time() + pause)

    async def _stream(self, fetch: _Fetch) -> None:
        """One request: append what it brings to the sink."""
        async with self._transport.download(fetch.url, fetch.headers()) as response:
            await self._begin(fetch, response)
            while chunk := await response.content.read(READ):  # of what has come, no more than this is taken at once
                if fetch.sink.size + len(chunk) > self._max_bytes:
                    raise fetch.failed(f"it is larger than {self._max_bytes} bytes")
                await fetch.sink.write(chunk)

    async def _begin(self, fetch: _Fetch, response: aiohttp.ClientResponse) -> None:
        """Judge an answer by its head, and make the sink ready for its body."""
        status = response.status
        if status in EXPIRED:
            raise _Expired(f"the URL is answered with {status}", status)
        if status >= SERVER_ERRORS or status in PASSING:
            raise _Interrupted(f"the URL is answered with {status}", status)
        begun = f"bytes {fetch.sink.size}-"
        if status == PARTIAL and response.headers.get("Content-Range", "").startswith(begun):
            return
        await fetch.sink.restart()
        if status in (PARTIAL, NOT_SATISFIABLE):
            fetch.validator = None
            raise _Interrupted("the rest that was asked for cannot be had", status)
        if status != OK:
            raise fetch.failed(f"the URL is answered with {status}", status)
        if (response.content_length or 0) > self._max_bytes:
            raise fetch.failed(f"it is larger than {self._max_bytes} bytes")
        fetch.validator = _validator(response)

    async def _refresh(self, fetch: _Fetch, expired: _Expired) -> None:
        """Ask for the task's status once more: it brings a fresh URL."""
        fetch.refreshed = True
        image = fetch.image
        if image.task_id is None:
            raise fetch.failed(f"{expired}, and its task is not known", expired.status)
        try:
            status = await self._poll_loop.look_up(image.task_id)
        except KontextError as error:
            raise fetch.failed(f"{expired}, and there is no fresh one: {error}", expired.status) from error
        fresh = _same_image(image, status.images)
        if fresh is None:
            raise fetch.failed(f"{expired}, and its task names no such picture any more", expired.status)
        fetch.url = fresh.url
        fetch.validator = None
        await fetch.sink.restart()

    def _report(self, image: GeneratedImage, path: Path | None, sink: Sink) -> None:
        now = self._clock.utcnow()
        self._hub.emit(Downloaded(at=now, task_id=image.task_id, image=image, path=path, size=sink.size))


def fitting_path(path: Path, kind: str) -> Path:
    """`path` with an extension that fits an image of `kind`.

    An extension that stands for another kind of image is replaced; anything else after a dot belongs to the name.
    """
    fitting = EXTENSIONS[kind]
    suffix = path.suffix.lower()
    if suffix in fitting:
        return path
    if any(suffix in others for others in EXTENSIONS.values()):
        return path.with_suffix(fitting[0])
    return path.with_name(path.name + fitting[0])


async def _verified(sink: Sink) -> str:
    """The kind of the picture that was fetched; what is none is forgotten, since it cannot be continued."""
    kind = kind_of(sink.head)
    if kind and is_whole(kind, sink.tail):
        return kind
    wrong = "the image has no end" if kind else "what came is not an image" if sink.size else "it is empty"
    await sink.restart()
    raise _Interrupted(wrong)


def _validator(response: aiohttp.ClientResponse) -> str | None:
    """What ``If-Range`` may name: a strong entity tag, or else the date (RFC 9110, section 13.1.5)."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified")


def _same_image(image: GeneratedImage, candidates: tuple[GeneratedImage, ...]) -> GeneratedImage | None:
    """The picture that `image` was, among those with fresh URLs: by its job, by its path, or because it is alone."""
    for candidate in candidates:
        if image.job_id is not None and candidate.job_id == image.job_id:
            return candidate
    for candidate in candidates:
        if without_query(candidate.url) == without_query(image.url):
            return candidate
    return candidates[0] if len(candidates) == 1 else None


@contextmanager
def _disk_errors(image: GeneratedImage) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = f"it cannot be written: {error}"
        raise DownloadFailed(url=without_query(image.url), reason=reason, task_id=image.task_id) from error
