"""Downloads images: streamed, resumed after interruptions, verified, and renamed into place when they are complete."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread

from kontext_async.decisions.downloads import Verdict, Version
from kontext_async.decisions.resend import backoff
from kontext_async.decisions.urls import UnusableURL, resolve_reference
from kontext_async.engine.clock import cancel_at, sleep_until
from kontext_async.engine.fetch import ACCEPT_ANY, Fetch, Interrupted, Verified
from kontext_async.engine.image_paths import adapt_extension, choose_path
from kontext_async.engine.request_log import LoggedRequest
from kontext_async.engine.sinks import FileSink, MemorySink, Sink
from kontext_async.engine.transport import TransportError
from kontext_async.errors import DownloadFailed, KontextError
from kontext_async.events import Downloaded, Retrying
from kontext_async.gateways import find_reference, plain_reference
from kontext_async.images.data_uris import decode_payload, is_data_uri, parse_data_uri
from kontext_async.redaction import strip_query

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from kontext_async.engine.context import Context
    from kontext_async.engine.poll_loop import PollLoop
    from kontext_async.engine.transport import Transport
    from kontext_async.models import GeneratedImage

__all__ = ["Downloader"]

WRITERS = 16
"""Threads that write images. More take memory, and make no disk faster."""

DATA_URI_RATIO = 4
"""Characters of a data URI for each byte of the image, at most: percent-encoding takes three."""

RESUMES = 2
"""Consecutive requests for the rest of an image that may fail before the download begins again without a range."""


class Downloader:
    """Downloads the images of a session."""

    def __init__(self, transport: Transport, poll_loop: PollLoop, context: Context) -> None:
        self._transport = transport
        self._gateway = transport.gateway
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
        await self.receive(image, sink)
        return sink.data

    async def receive(self, image: GeneratedImage, sink: Sink) -> None:
        """Download an image into a sink that is no file.

        Raises:
            DownloadFailed: The download failed.
        """
        began = self._clock.time()
        verified = await self._fetch(image, sink)
        self._report(image, None, sink, verified, began)

    async def save(self, image: GeneratedImage, path: Path, *, place: int | None = None, durable: bool = False) -> Path:
        """Download an image into a file, and replace an existing one. The extension is adapted to the format.

        A symbolic link is replaced by the file; what it points to stays as it is. A device, a named pipe or a socket is
        never replaced: the download fails before it begins.

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
        began = self._clock.time()
        name = re.sub(r"[^A-Za-z0-9_-]", "_", image.task_id or "image")
        with _translate_path_errors(image, self.refer(image)):
            path = await anyio.to_thread.run_sync(choose_path, path, name, place)
        sink = FileSink(path.parent, path.name, durable=durable, writers=self._writers)
        try:
            with _translate_disk_errors(image, self.refer(image)):
                verified = await self._fetch(image, sink)
                target = adapt_extension(path, verified.image_format)
                await sink.commit(target)
        except BaseException:
            with anyio.CancelScope(shield=True):
                await sink.discard()
            raise
        self._report(image, target, sink, verified, began)
        return target

    async def _fetch(self, image: GeneratedImage, sink: Sink) -> Verified:
        """Stream an image into `sink`, and verify it."""
        fetch = Fetch(image, sink, image.url, self._max_bytes)
        try:
            fetch.url = self._resolve(fetch, image.url)
            async with self._transport.connection_slots:
                with cancel_at(self._clock, self._clock.time() + self._timeout):
                    return await self._fetch_until_complete(fetch)
                if verified := await fetch.recognize():
                    return verified
            raise fetch.failed(f"it was not finished within {self._timeout:g} s")
        except DownloadFailed as error:
            error.reference = self.refer(image)
            raise self._transport.redact(error) from error.__cause__

    def refer(self, image: GeneratedImage) -> str | None:
        """Return the reference of an image's task as text."""
        if image.reference is None and image.task_id is not None and self._gateway.id_is_enough:
            return plain_reference(self._gateway.name, image.task_id)
        return image.reference

    def _resolve(self, fetch: Fetch, url: str) -> str:
        """Return the URL to request: as it came, or resolved against the gateway's address if it is relative."""
        if is_data_uri(url):
            return url
        if not url.strip():
            raise fetch.failed("the URL is empty", retryable=False)
        try:
            return str(resolve_reference(self._gateway.base, url))
        except UnusableURL as error:
            raise fetch.failed(f"the URL is unusable: {error}", retryable=False) from None

    async def _fetch_until_complete(self, fetch: Fetch) -> Verified:
        while True:
            try:
                await self._stream(fetch)
                return await fetch.verify()
            except TransportError as error:
                if verified := await fetch.recognize():
                    return verified
                if error.kind.lasts:
                    raise fetch.failed(str(error), retryable=False) from error.__cause__
                await self._retry(fetch, error)
            except Interrupted as interrupted:
                await self._recover(fetch, interrupted)

    async def _stream(self, fetch: Fetch) -> None:
        """Send one request and append its body to the sink."""
        if is_data_uri(fetch.url):
            await self._decode(fetch)
            return
        attempt, task_id = fetch.attempts + 1, fetch.image.task_id
        with LoggedRequest("download", self._clock, attempt=attempt, task_id=task_id) as logged:
            async with self._transport.download(fetch.url, fetch.prepare()) as response:
                logged.responded(response.status, complete=False)
                await fetch.receive(response, self._clock)

    async def _decode(self, fetch: Fetch) -> None:
        """Decode a data URI into the sink."""
        fetch.check_size(len(fetch.url) // DATA_URI_RATIO)
        try:
            data = await anyio.to_thread.run_sync(_decode_data_uri, fetch.url)
        except ValueError as error:
            raise fetch.failed(f"the data URI is unusable: {error}", retryable=False) from None
        await fetch.restart()
        await fetch.append(data)
        fetch.version = Version(total=len(data))

    async def _recover(self, fetch: Fetch, interrupted: Interrupted) -> None:
        """Do what makes another request worthwhile, or end the download."""
        match interrupted.verdict:
            case Verdict.BEGIN_AGAIN:
                self._report_retry(fetch, interrupted)
                await fetch.begin_again()
            case Verdict.NOT_ACCEPTABLE if fetch.accept != ACCEPT_ANY:
                fetch.accept = ACCEPT_ANY
            case Verdict.MISSING if fetch.image.task_id is not None and not fetch.refreshed:
                await self._refresh(fetch, interrupted)
            case Verdict.MISSING | Verdict.NOT_READY if self._is_within_grace(fetch):
                self._report_retry(fetch, interrupted)
                await self._wait_for_image(fetch)
            case Verdict.EXPIRED if not fetch.refreshed:
                await self._refresh(fetch, self._with_expiry(fetch, interrupted))
            case Verdict.TRANSIENT:
                await self._retry(fetch, interrupted)
            case _:
                raise fetch.failed(str(self._with_expiry(fetch, interrupted)), interrupted.status)

    def _with_expiry(self, fetch: Fetch, interrupted: Interrupted) -> Interrupted:
        """Return the same with the time at which the URL expires, if it was refused and states one."""
        expiry = self._gateway.read_expiry(fetch.url) if interrupted.verdict is Verdict.EXPIRED else None
        if expiry is None:
            return interrupted
        text = f"{interrupted}; its URL is valid until {expiry:%Y-%m-%d %H:%M:%S} UTC"
        return Interrupted(text, interrupted.status, interrupted.verdict)

    async def _retry(self, fetch: Fetch, cut: Interrupted | TransportError) -> None:
        """Pause before another attempt, unless too many brought nothing more."""
        fetch.attempts = 1 if fetch.sink.size > fetch.reached else fetch.attempts + 1
        fetch.reached = max(fetch.reached, fetch.sink.size)
        is_last = fetch.attempts >= self._retries.attempts
        if fetch.is_resuming:
            fetch.failed_resumes += 1
            if is_last or fetch.failed_resumes >= RESUMES:
                await fetch.begin_again()
        if is_last and not fetch.is_resuming:
            raise fetch.failed(str(cut), getattr(cut, "status", None)) from cut.__cause__
        self._report_retry(fetch, cut)
        pause = backoff(fetch.attempts, self._retries, self._random.random())
        await sleep_until(self._clock, self._clock.time() + pause)

    def _report_retry(self, fetch: Fetch, cut: Interrupted | TransportError) -> None:
        error = self._transport.redact(fetch.failed(str(cut), getattr(cut, "status", None)))
        error.reference = self.refer(fetch.image)
        fields = self._event_fields(fetch.image)
        self._hub.emit(Retrying(**fields, operation="download", attempt=fetch.attempts, error=error))

    def _is_within_grace(self, fetch: Fetch) -> bool:
        """Return True if the image may not be there yet: not every server may know a new image at once."""
        now = self._clock.time()
        if fetch.grace_ends is None:
            fetch.grace_ends = now + self._retries.not_found_grace
        return now < fetch.grace_ends

    async def _wait_for_image(self, fetch: Fetch) -> None:
        now = self._clock.time()
        fetch.waits += 1
        pause = backoff(fetch.waits, self._retries, self._random.random())
        await sleep_until(self._clock, min(now + pause, fetch.grace_ends or now))

    async def _refresh(self, fetch: Fetch, expired: Interrupted) -> None:
        """Poll the task once more for a fresh URL."""
        fetch.refreshed = True
        image = fetch.image
        if image.task_id is None:
            raise fetch.failed(f"{expired}, and its task is unknown", expired.status)
        try:
            reference = find_reference(self._gateway, image.reference or image.task_id)
            status = await self._poll_loop.fetch_status(reference)
        except KontextError as error:
            raise fetch.failed(f"{expired}, and there is no fresh URL: {error}", expired.status) from error
        fresh = _same_image(image, status.images)
        if fresh is None:
            raise fetch.failed(f"{expired}, and its task no longer lists the image", expired.status)
        fetch.url = self._resolve(fetch, fresh.url)
        await fetch.restart()

    def _report(self, image: GeneratedImage, path: Path | None, sink: Sink, verified: Verified, began: float) -> None:
        fields = self._event_fields(image)
        seconds = self._clock.time() - began
        self._hub.emit(
            Downloaded(**fields, image=image, path=path, size=sink.size, note=verified.note, seconds=seconds)
        )

    def _event_fields(self, image: GeneratedImage) -> dict[str, Any]:
        return {"at": self._clock.utcnow(), "task_id": image.task_id, "reference": self.refer(image)}


def _decode_data_uri(uri: str) -> bytes:
    return decode_payload(parse_data_uri(uri))


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
def _translate_path_errors(image: GeneratedImage, reference: str | None) -> Iterator[None]:
    """Translate the errors of a path that cannot be used; a NUL or a lone surrogate is a ValueError."""
    try:
        yield
    except (OSError, ValueError) as error:
        failed = _make_disk_error(image, getattr(error, "strerror", None) or str(error), reference)
        failed.retryable = False
        raise failed from error


@contextmanager
def _translate_disk_errors(image: GeneratedImage, reference: str | None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _make_disk_error(image, str(error), reference) from error


def _make_disk_error(image: GeneratedImage, reason: str, reference: str | None) -> DownloadFailed:
    reason = f"the file cannot be written: {reason}"
    error = DownloadFailed(url=strip_query(image.url), reason=reason, task_id=image.task_id)
    error.reference = reference
    return error
