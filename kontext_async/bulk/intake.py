"""Reads requests lazily, in chunks, with their fingerprints. Files are read and hashed off the event loop.

A chunk is at most so many requests, so much time, and so many bytes of images that are held in memory: an iterable of
any length takes no more than that, and one that is slow is not waited for in vain.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, Iterable, Mapping
from functools import partial
from os import PathLike
from typing import TYPE_CHECKING, TypeAlias

import anyio.to_thread
import attrs
from attrs import frozen

from kontext_async import images
from kontext_async.bulk.entries import Entry
from kontext_async.errors import InvalidRequest, KontextError
from kontext_async.models import KontextRequest
from kontext_async.protocol import fingerprint

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from kontext_async.images import ImageSource, LoadedImage
    from kontext_async.models import RequestLike

__all__ = ["Fault", "Intake", "Requests"]

Requests: TypeAlias = "Iterable[RequestLike] | AsyncIterable[RequestLike]"

CHUNK = 256
CHUNK_SECONDS = 0.05
CHUNK_BYTES = 32 * 1024 * 1024


@frozen(kw_only=True)
class Fault:
    """Something of which no request can be made, or whose images cannot be read.

    Attributes:
        position: Its place in the input, from 0.
        request: The request, where there is one.
        error: What is wrong.
    """

    position: int
    request: KontextRequest | None
    error: KontextError


class Intake:
    """Reads an input once.

    Args:
        requests: Prompts, mappings or requests. A plain iterable is read in worker threads, one after the other.
        max_image_bytes: The largest input image.
    """

    def __init__(self, requests: Requests, max_image_bytes: int) -> None:
        self._chunks = _chunks_of(requests)
        self._max_image_bytes = max_image_bytes
        self._position = 0

    async def next(self) -> list[Entry | Fault]:
        """The next chunk; empty at the end.

        Raises:
            Exception: What the iterable raised.
        """
        given: list[RequestLike] = await anext(self._chunks, [])
        positions = range(self._position, self._position + len(given))
        self._position += len(given)
        return await anyio.to_thread.run_sync(
            lambda: [self._entry(place, each) for place, each in zip(positions, given, strict=True)]
        )

    def _entry(self, position: int, given: RequestLike) -> Entry | Fault:
        request: KontextRequest | None = None
        loaded: list[LoadedImage] = []
        try:
            request = KontextRequest.of(given)
            for index, source in enumerate(request.input_images):
                name = f"input_images[{index}]"
                if isinstance(source, images.OneShotReader):
                    rule = "a durable run may have to read it again: pass a path, bytes or a file"
                    raise InvalidRequest(name, source.reader, rule)
                image = images.load(source, name, self._max_image_bytes)
                loaded.append(image)
                if not isinstance(source, str | PathLike | bytes):  # it may be read once only, or change
                    request = _with_image(request, index, image)
            return Entry(position=position, request=request, fingerprint=fingerprint(request, loaded))
        except KontextError as error:
            return Fault(position=position, request=request, error=error)
        finally:
            for image in loaded:
                image.close()


def _with_image(request: KontextRequest, index: int, image: LoadedImage) -> KontextRequest:
    sources: list[ImageSource] = list(request.input_images)
    sources[index] = image.read()
    return attrs.evolve(request, input_images=sources)


async def _chunks_of(requests: object) -> AsyncIterator[list[RequestLike]]:
    if isinstance(requests, AsyncIterable):
        async for chunk in _gathered(aiter(requests)):
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
    """A chunk, and what the iterable raised behind it."""
    chunk: list[RequestLike] = []
    end = time.monotonic() + CHUNK_SECONDS
    size = 0
    try:
        while len(chunk) < CHUNK and size < CHUNK_BYTES and (not chunk or time.monotonic() < end):
            chunk.append(given := next(iterator))
            size += _held(given)
    except StopIteration:
        return chunk, None
    except Exception as error:  # noqa: BLE001 # the user's iterable may raise anything; it is theirs to see
        return chunk, error
    return chunk, None


async def _gathered(requests: AsyncIterator[RequestLike]) -> AsyncIterator[list[RequestLike]]:
    """What an async iterable has ready, in chunks. Whatever is not ready in time belongs to the next one."""
    coming: asyncio.Future[RequestLike] | None = None
    chunk: list[RequestLike] = []
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(requests))
            await asyncio.wait([coming], timeout=CHUNK_SECONDS if chunk else None)
            if coming.done():
                arrived, coming = coming, None
                try:
                    chunk.append(arrived.result())
                except StopAsyncIteration:
                    break
                if len(chunk) < CHUNK and sum(map(_held, chunk[-1:])) < CHUNK_BYTES:
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


def _held(given: RequestLike) -> int:
    """The bytes of images that a request holds in memory, nearly."""
    if isinstance(given, KontextRequest):
        sources: Iterable[object] = given.input_images
    elif isinstance(given, Mapping):
        listed = given.get("input_images")
        sources = listed if isinstance(listed, list | tuple) else (listed,)
    else:
        return 0
    return sum(len(each) if isinstance(each, str | bytes | bytearray | memoryview) else 4096 for each in sources)
