"""One image that is being downloaded: what outlives its requests, and how its bytes are received and verified."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from attrs import define, evolve, field, frozen

from kontext_async.decisions.downloads import Part, Verdict, Version, judge, read_head
from kontext_async.engine.clock import cancel_at
from kontext_async.errors import DownloadFailed
from kontext_async.images import (
    ACCEPTED_FORMATS,
    FORMAT_NAMES,
    WITHOUT_END,
    describe_other_format,
    detect_any_format,
    find_end,
    is_complete,
    seems_complete,
)
from kontext_async.redaction import strip_query

if TYPE_CHECKING:
    from kontext_async.engine.clock import Clock
    from kontext_async.engine.sinks import Sink
    from kontext_async.engine.transport import Download
    from kontext_async.models import GeneratedImage

__all__ = ["Fetch", "Interrupted", "Verified"]

READ_SIZE = 64 * 1024
"""The most bytes to take from the buffer at once."""

GRACE = 1.0
"""Seconds for which the next bytes may be late once the image seems to be complete. If it is, no more are awaited: with
a length that is a byte too long, they would never come."""

REQUESTED = ("jpeg", "png", "webp", "gif")

ACCEPT = "image/jpeg, image/png, image/webp;q=0.9, image/gif;q=0.8"
"""The formats that are requested. A server that negotiates may send AVIF to those who accept any image."""

ACCEPT_ANY = "*/*"


class Interrupted(Exception):
    """A request did not bring the image; `verdict` says what may."""

    def __init__(self, reason: str, status: int | None = None, verdict: Verdict = Verdict.TRANSIENT) -> None:
        super().__init__(reason)
        self.status = status
        self.verdict = verdict


@frozen
class Verified:
    """A complete image.

    Attributes:
        image_format: Its format.
        note: What is unusual about it.
    """

    image_format: str
    note: str | None = None


@define
class Fetch:
    """One image that is being downloaded.

    Attributes:
        image: The image.
        sink: Where its bytes go.
        url: The current URL.
        max_bytes: The largest size that is downloaded.
        version: The version of the file that the sink has, or has a part of.
        accept: The formats to request.
        may_resume: False once a part could not be continued.
        is_resuming: True if the last request asked for the rest of a part.
        failed_resumes: Consecutive requests for the rest that brought nothing.
        reached: The most bytes that the sink ever had.
        attempts: Consecutive attempts that brought nothing more.
        refreshed: True once a fresh URL was requested.
        waits: Times that the image was not there yet.
        grace_ends: The time until which the image may be missing; None as long as it was not.
        without_end: The last delivery that kept its announced length, but has no end.
    """

    image: GeneratedImage
    sink: Sink
    url: str
    max_bytes: int
    version: Version = field(factory=Version, init=False)
    accept: str = field(default=ACCEPT, init=False)
    may_resume: bool = field(default=True, init=False)
    is_resuming: bool = field(default=False, init=False)
    failed_resumes: int = field(default=0, init=False)
    reached: int = field(default=0, init=False)
    attempts: int = field(default=0, init=False)
    refreshed: bool = field(default=False, init=False)
    waits: int = field(default=0, init=False)
    grace_ends: float | None = field(default=None, init=False)
    without_end: tuple[int, bytes, bytes] | None = field(default=None, init=False)

    def prepare(self) -> dict[str, str]:
        """Return the headers of the next request: for the rest only, if the download can be resumed."""
        headers = {"Accept": self.accept}
        validator = self.version.validator
        self.is_resuming = bool(self.may_resume and self.sink.size and validator)
        if self.is_resuming and validator:
            headers |= {"Range": f"bytes={self.sink.size}-", "If-Range": validator}
        return headers

    async def receive(self, response: Download, clock: Clock) -> None:
        """Check the head of a response, and append its body to the sink.

        Raises:
            Interrupted: The response does not have the image, or not all of it.
            DownloadFailed: The image is too large.
            TransportError: The connection failed.
        """
        await self._begin(response)
        while chunk := await self._read(response, clock):
            await self.append(chunk)
        total = self.version.total
        if total is not None and self.sink.size < total:
            raise Interrupted(f"{self.sink.size} of {total} bytes arrived")

    async def append(self, chunk: bytes) -> None:
        """Append bytes to the sink.

        Raises:
            DownloadFailed: The image is too large.
        """
        self.check_size(self.sink.size + len(chunk))
        await self.sink.write(chunk)

    def check_size(self, size: int) -> None:
        """Check the size of the image.

        Raises:
            DownloadFailed: The image is too large.
        """
        if size > self.max_bytes:
            raise self.failed(f"it is larger than {self.max_bytes} bytes")

    async def begin_again(self) -> None:
        """Discard the part, and request no rest any more."""
        self.may_resume = False
        await self.restart()

    async def restart(self) -> None:
        """Discard all bytes."""
        self.version = Version()
        await self.sink.restart()

    async def verify(self) -> Verified:
        """Return the format of an image that arrived in sound framing. Discard anything else: no rest completes it.

        A delivery that keeps its announced length is complete if its format is known. If it has no end, it may be
        a copy that was cut while it was stored: it counts if it comes like that twice.

        Raises:
            Interrupted: It is no image, or a truncated one.
        """
        sink = self.sink
        image_format = detect_any_format(sink.head)
        if image_format is None:
            reason = _describe_non_image(sink.head)
            await self.restart()
            raise Interrupted(reason)
        is_as_announced = sink.size == self.version.total
        note = _describe_unrequested(image_format)
        if is_as_announced and is_complete(image_format, sink.tail):
            return Verified(image_format, note)
        if image_format in WITHOUT_END or await self._has_end(image_format):
            return Verified(image_format, note)
        delivered = (sink.size, sink.head, sink.tail)
        if is_as_announced and not sink.keeps_bytes:
            return Verified(image_format, "its end was not found, but the server sent as much as it announced")
        if is_as_announced and self.without_end == delivered:
            return Verified(image_format, "the image has no end, and the server sent it so twice: it may be truncated")
        self.without_end = delivered if is_as_announced else None
        await self.restart()
        raise Interrupted("the image is truncated")

    async def recognize(self) -> Verified | None:
        """Return the format of an image that is complete although its transfer did not end properly."""
        image_format = detect_any_format(self.sink.head)
        if image_format is None or not await self._has_end(image_format):
            return None
        return Verified(image_format, _describe_unrequested(image_format))

    def failed(self, reason: str, status: int | None = None, *, retryable: bool = True) -> DownloadFailed:
        """Make the error that ends the download."""
        error = DownloadFailed(url=strip_query(self.url), reason=reason, status=status, task_id=self.image.task_id)
        error.retryable = retryable
        return error

    async def _begin(self, response: Download) -> None:
        head = read_head(response.status, response.headers)
        part = Part(size=self.sink.size, version=self.version) if self.is_resuming else None
        verdict = judge(head, part)
        if verdict is Verdict.REST:
            self.failed_resumes = 0
            self.version = evolve(self.version, total=self.version.total or head.version.total)
            return
        if verdict is not Verdict.WHOLE:
            raise Interrupted(_describe_refusal(response.status, verdict, part), response.status, verdict)
        await self.restart()
        self.check_size(head.version.total or 0)
        self.version = head.version
        self.sink.total = head.version.total

    async def _read(self, response: Download, clock: Clock) -> bytes:
        """Return the next bytes; none at the end, also if only the framing has no end."""
        image_format = detect_any_format(self.sink.head)
        if image_format and seems_complete(image_format, self.sink.tail):
            with cancel_at(clock, clock.time() + GRACE):
                return await response.read(READ_SIZE)
            if await self._has_end(image_format):
                self.version = evolve(self.version, total=None)
                return b""
        return await response.read(READ_SIZE)

    async def _has_end(self, image_format: str) -> bool:
        if not self.sink.keeps_bytes:
            return seems_complete(image_format, self.sink.tail) or _fills_riff(self.sink)
        return await self.sink.inspect(partial(find_end, image_format)) is not None


def _fills_riff(sink: Sink) -> bool:
    """Return True for a WebP with as many bytes as its header announces (RIFF)."""
    return sink.head[:4] == b"RIFF" and sink.size >= 8 + int.from_bytes(sink.head[4:8], "little")


def _describe_refusal(status: int, verdict: Verdict, part: Part | None) -> str:
    if verdict is Verdict.BEGIN_AGAIN and part:
        return f"the server did not send the rest of the image, but responded {status}"
    return f"the server responded {status}"


def _describe_non_image(head: bytes) -> str:
    if not head:
        return "it is empty"
    other = describe_other_format(head)
    return f"it is not an image, but {other}" if other else "it is not an image"


def _describe_unrequested(image_format: str) -> str | None:
    """Describe an image that came in a format that was not requested."""
    if image_format in REQUESTED:
        return None
    return f"the server sent {FORMAT_NAMES[image_format]}, although {ACCEPTED_FORMATS} was requested"
