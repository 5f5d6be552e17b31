"""Reads requests lazily, in chunks, and computes their keys. Files are read and hashed off the event loop.

A chunk ends after `CHUNK` requests, `CHUNK_SECONDS`, or `CHUNK_BYTES` of images in memory: memory use does not depend
on the length of the input, and requests from a slow iterable are submitted as they arrive.

The key of a request is made of its digest and of the number of equal requests before it in the same input. The numbers
are counted in this process: another worker that reads the same input gets the same keys, however far it is.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, cast

import anyio.to_thread
import attrs
from attrs import frozen

from kontext_async import images
from kontext_async.bulk.filenames import KEY_DIGITS
from kontext_async.bulk.records import InputRequest
from kontext_async.errors import InvalidRequest, KontextError
from kontext_async.models import KontextRequest
from kontext_async.protocol import fingerprint
from kontext_async.store.digest import request_digest

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from kontext_async.images import ImageSource, LoadedImage
    from kontext_async.models import RequestLike

__all__ = ["DuplicateCounter", "InputReader", "InvalidInput", "Requests"]

Requests: TypeAlias = "Iterable[RequestLike] | AsyncIterable[RequestLike]"

CHUNK = 256
CHUNK_SECONDS = 0.05
CHUNK_BYTES = 32 * 1024 * 1024

DIGEST_BYTES = 16
"""The bytes of a digest that count: as many as a key has."""


@frozen(kw_only=True)
class InvalidInput:
    """An item of the input that is not a valid request, or whose images cannot be read. It is not submitted.

    Attributes:
        position: The position in the input, from 0.
        request: The request; None if the item is not a valid request.
        error: The error.
    """

    position: int
    request: KontextRequest | None
    error: KontextError


class DuplicateCounter:
    """Counts equal values. The counts are in a temporary file, which SQLite deletes: memory use is bounded.

    Its methods block on disk access; several threads may call them.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._database = sqlite3.connect("", isolation_level=None, check_same_thread=False)
        self._database.execute("PRAGMA synchronous = OFF")
        self._database.execute("PRAGMA journal_mode = OFF")
        self._database.execute("CREATE TABLE seen (value BLOB PRIMARY KEY, count INTEGER NOT NULL) WITHOUT ROWID")

    def count(self, values: Iterable[bytes]) -> list[int]:
        """Return for each digest how often it was counted before.

        Raises:
            KontextError: The temporary file cannot be written.
        """
        wanted = [value[:DIGEST_BYTES] for value in values]
        with self._lock:
            try:
                self._database.execute("BEGIN")
                counts = [
                    count
                    for start in range(0, len(wanted), CHUNK)
                    for count in self._count(wanted[start : start + CHUNK])
                ]
                self._database.execute("COMMIT")
            except sqlite3.Error as error:
                raise KontextError(f"equal requests cannot be counted in a temporary file: {error}") from error
            return counts

    def close(self) -> None:
        """Delete the counts."""
        with self._lock:
            self._database.close()

    def _count(self, values: list[bytes]) -> Iterator[int]:
        """Count some values by one statement: one for each would take three times as long."""
        found: dict[bytes, list[int]] = {}
        statement = (
            f"INSERT INTO seen VALUES {', '.join(['(?, 0)'] * len(values))} "  # noqa: S608 # placeholders only
            "ON CONFLICT DO UPDATE SET count = count + 1 RETURNING count, value"
        )
        for count, value in sorted(self._database.execute(statement, values), reverse=True):  # SQLite promises no order
            found.setdefault(value, []).append(count)
        return (found[value].pop() for value in values)


@frozen
class _Digested:
    """A request with its digests, before its key is known."""

    position: int
    request: KontextRequest
    fingerprint: str
    digest: bytes


class InputReader:
    """Reads an input once.

    Args:
        requests: Prompts, mappings or requests. A plain iterable is read in worker threads, one at a time.
        max_image_bytes: The largest allowed input image, in bytes.
        folder: The folder that relative paths of images are relative to; None is the working directory.
    """

    def __init__(self, requests: Requests, max_image_bytes: int, folder: Path | None = None) -> None:
        self._chunks = _chunks_of(requests)
        self._folder = folder or Path.cwd()
        self._max_image_bytes = max_image_bytes
        self._position = 0
        self._duplicates = DuplicateCounter()

    async def next(self) -> list[InputRequest | InvalidInput]:
        """Return the next chunk; empty at the end.

        Raises:
            Exception: The error that the iterable raised.
        """
        given: list[RequestLike] = await anext(self._chunks, [])
        start, self._position = self._position, self._position + len(given)
        return await anyio.to_thread.run_sync(self._read_chunk, start, given)

    def close(self) -> None:
        """Delete the temporary file. It does not close the iterable, which is the user's."""
        self._duplicates.close()

    def _read_chunk(self, start: int, given: list[RequestLike]) -> list[InputRequest | InvalidInput]:
        read = [self._digest(position, each) for position, each in enumerate(given, start)]
        digested = [each for each in read if isinstance(each, _Digested)]
        counts = iter(self._duplicates.count(each.digest for each in digested))
        signed = [bytes.fromhex(each.fingerprint) for each in digested if each.fingerprint != each.digest.hex()]
        old_counts = iter(self._duplicates.count(signed) if signed else ())
        return [
            _with_key(each, next(counts), old_counts) if isinstance(each, _Digested) else each  # in the same order
            for each in read
        ]

    def _digest(self, position: int, given: RequestLike) -> _Digested | InvalidInput:
        request: KontextRequest | None = None
        loaded: list[LoadedImage] = []
        try:
            request = _with_absolute_paths(KontextRequest.of(given), self._folder)
            for index, source in enumerate(request.input_images):
                name = f"input_images[{index}]"
                _check_repeatable(source, name)
                image = images.load(source, name, self._max_image_bytes)
                loaded.append(image)
                if not image.is_repeatable:  # the source may be readable only once, or change
                    request = _with_image(request, index, image)
            known = fingerprint(request, loaded)
            return _Digested(position, request, known, request_digest(request, loaded, fingerprint=known))
        except KontextError as error:
            return InvalidInput(position=position, request=request, error=error)
        except Exception as error:  # noqa: BLE001 # one odd request must not end the run
            rule = f"it must be readable: unexpected {type(error).__name__}"
            fault = InvalidRequest("request", type(given).__name__, rule)
            return InvalidInput(position=position, request=request, error=fault)
        finally:
            for image in loaded:
                image.close()


def _with_key(read: _Digested, count: int, old_counts: Iterator[int]) -> InputRequest:
    """Return the request with its key, and with the key that version 1 gave it, if its digest was another one."""
    digest = read.digest.hex()
    is_signed = read.fingerprint != digest
    return InputRequest(
        position=read.position,
        request=read.request,
        fingerprint=digest,
        sent_fingerprint=read.fingerprint,
        key=f"{digest[:KEY_DIGITS]}-{count}",
        old_key=f"{read.fingerprint[:KEY_DIGITS]}-{next(old_counts)}" if is_signed else None,
    )


def _check_repeatable(source: ImageSource, name: str) -> None:
    if isinstance(source, images.OneShotReader):
        rule = "it must be a path, bytes or a file, because a durable run may read it again"
        raise InvalidRequest(name, source.reader, rule)


def _with_absolute_paths(request: KontextRequest, folder: Path) -> KontextRequest:
    """Make the relative paths of images absolute: the request is sent later, perhaps from another directory."""
    if not request.input_images:
        return request
    sources = [_absolute(source, folder) for source in request.input_images]
    changed = any(new is not old for new, old in zip(sources, request.input_images, strict=True))
    return attrs.evolve(request, input_images=sources) if changed else request


def _absolute(source: ImageSource, folder: Path) -> ImageSource:
    if not images.is_path(source):
        return source
    try:
        path = images.resolve_path(cast("str", source))
    except (TypeError, ValueError):  # `images.load` says what is wrong
        return source
    return source if path.is_absolute() else folder / path


def _with_image(request: KontextRequest, index: int, image: LoadedImage) -> KontextRequest:
    sources: list[ImageSource] = list(request.input_images)
    sources[index] = image.read()
    return attrs.evolve(request, input_images=sources)


async def _chunks_of(requests: object) -> AsyncIterator[list[RequestLike]]:
    if isinstance(requests, AsyncIterable):
        async for chunk in _gather(aiter(requests)):
            yield chunk
    elif isinstance(requests, Iterable) and not isinstance(requests, str | bytes | Mapping):
        iterator = await anyio.to_thread.run_sync(iter, requests)
        while True:
            chunk, failure = await anyio.to_thread.run_sync(partial(_read, iterator))
            if chunk:
                yield chunk
            if failure:
                raise failure
            if not chunk:
                return
    else:
        raise InvalidRequest("requests", requests, "it must be an iterable or an async iterable of requests")


def _read(iterator: Iterator[RequestLike]) -> tuple[list[RequestLike], Exception | None]:
    """Return a chunk, and the error that the iterable raised after it."""
    chunk: list[RequestLike] = []
    end = time.monotonic() + CHUNK_SECONDS
    size = 0
    try:
        while len(chunk) < CHUNK and size < CHUNK_BYTES and (not chunk or time.monotonic() < end):
            chunk.append(given := next(iterator))
            size += _image_bytes(given)
    except StopIteration:
        return chunk, None
    except Exception as error:  # noqa: BLE001 # the user's iterable may raise anything; it is theirs to see
        return chunk, error
    return chunk, None


async def _gather(requests: AsyncIterator[RequestLike]) -> AsyncIterator[list[RequestLike]]:
    """Yield the requests that an async iterable has ready, in chunks. Later ones belong to the next chunk."""
    coming: asyncio.Future[RequestLike] | None = None
    chunk: list[RequestLike] = []
    end = 0.0
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(requests))
            await asyncio.wait([coming], timeout=max(0.0, end - time.monotonic()) if chunk else None)
            if coming.done():
                arrived, coming = coming, None
                try:
                    end = end if chunk else time.monotonic() + CHUNK_SECONDS
                    chunk.append(arrived.result())
                except StopAsyncIteration:
                    break
                if len(chunk) < CHUNK and sum(map(_image_bytes, chunk[-1:])) < CHUNK_BYTES:
                    continue
            yield chunk
            chunk = []
    except Exception:
        if chunk:
            yield chunk
        raise
    finally:
        if coming:
            coming.cancel()
            await asyncio.wait([coming])
    if chunk:
        yield chunk


def _image_bytes(given: RequestLike) -> int:
    """Estimate the bytes of images that a request keeps in memory."""
    if isinstance(given, KontextRequest):
        sources: Iterable[object] = given.input_images
    elif isinstance(given, Mapping):
        listed = given.get("input_images")
        sources = listed if isinstance(listed, list | tuple) else (listed,)
    else:
        return 0
    return sum(len(each) if isinstance(each, str | bytes | bytearray | memoryview) else 4096 for each in sources)
