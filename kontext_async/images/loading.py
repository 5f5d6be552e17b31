"""Makes a source ready to be sent: opens it, judges it by its own bytes, and takes its digest."""

from __future__ import annotations

import io
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from kontext_async.base_errors import InvalidRequest
from kontext_async.images.contents import DataUriContent, LoadedImage, MemoryContent, MonitoredFile
from kontext_async.images.data_uris import is_data_uri, payload_of
from kontext_async.images.formats import KIND_NAMES, MAX_IMAGE_BYTES, SIGNATURE, detect_format, has_header
from kontext_async.images.pillow import write_png
from kontext_async.images.sources import OneShotReader, check_head, is_pillow, is_url
from kontext_async.images.spooling import SPOOL_AT, Spool, TooLarge

if TYPE_CHECKING:
    from PIL import Image

    from kontext_async.images.contents import Content
    from kontext_async.images.sources import ImageSource

__all__ = ["load", "load_reader", "open_content", "read_content"]

READ = 64 * 1024


def load(source: ImageSource, name: str, max_bytes: int = MAX_IMAGE_BYTES) -> LoadedImage:
    """Open a source and judge it. Blocks: paths and files are read through, PIL images are encoded as PNG.

    What it returns must be closed. Bytes and data URIs are not copied, and files are not kept in memory.

    Args:
        source: What `check` has let through, async readers apart: see `load_reader`.
        name: The field's name, for the error.
        max_bytes: The largest size that is taken, in bytes.

    Raises:
        InvalidRequest: The source cannot be read, is too large, is empty, or is not an image of a known kind.
    """
    if is_url(source):
        return LoadedImage.of_url(source, name=name)
    return _judged(open_content(source, name, max_bytes), source, name, max_bytes)


async def load_reader(source: OneShotReader, name: str, max_bytes: int = MAX_IMAGE_BYTES) -> LoadedImage:
    """Read an async reader to its end, and judge what it gave; what it returns must be closed.

    Raises:
        InvalidRequest: As `load`; also, it was read before.
    """
    from anyio import to_thread  # noqa: PLC0415 # 40 ms of import that a request without a session does not need

    content = await read_content(source, name, max_bytes)
    if not content.on_disk:
        return _judged(content, source.reader, name, max_bytes)
    try:
        return await to_thread.run_sync(_judged, content, source.reader, name, max_bytes)
    except BaseException:
        content.close()
        raise


def open_content(source: ImageSource, name: str, max_bytes: int) -> Content:
    """The bytes of a source, whatever they are. Blocks.

    Raises:
        InvalidRequest: They cannot be read, or are too many.
    """
    if isinstance(source, OneShotReader):
        raise InvalidRequest(name, source.reader, "it must be awaited, which cannot be done here; pass what it gives")
    try:
        return _opened(source, max_bytes)
    except Exception as error:  # files and images of the user's own making may raise anything
        raise _unreadable(error, source, name, max_bytes) from error


async def read_content(source: OneShotReader, name: str, max_bytes: int) -> Content:
    """What an async reader gives. Disks are touched off the loop.

    Raises:
        InvalidRequest: It was read before, cannot be read, or gives nothing or too much.
    """
    if source.used:
        rule = "an async reader is read once, when its request is submitted; make a new request with a new one"
        raise InvalidRequest(name, source.reader, rule)
    source.used = True
    spool = Spool(max_bytes)
    try:
        await _fill(spool, source.reader)
        content = spool.finish()
    except Exception as error:  # readers of the user's own making may raise anything
        raise _unreadable(error, source.reader, name, max_bytes) from error
    finally:
        spool.close()
    if not content.size:
        rule = "an image must not be empty; an async reader that was read to its end gives nothing more"
        raise InvalidRequest(name, source.reader, rule)
    return content


async def _fill(spool: Spool, reader: Any) -> None:
    from anyio import to_thread  # noqa: PLC0415 # as above

    read = getattr(reader, "read_chunk", None) or reader.read
    while data := await read(min(READ, spool.room)):
        if spool.fits_memory(data):
            spool.write(data)
        else:
            await to_thread.run_sync(spool.write, data)
    if spool.on_disk:
        await to_thread.run_sync(spool.to_disk)


def _unreadable(error: Exception, source: object, name: str, max_bytes: int) -> InvalidRequest:
    if isinstance(error, TooLarge):
        return InvalidRequest(name, source, f"an image may have at most {max_bytes} bytes")
    return InvalidRequest(name, source, f"it must be readable: {error}")


def _judged(content: Content, source: object, name: str, max_bytes: int) -> LoadedImage:
    """What the gateway would refuse is refused; all else gets its digest."""
    try:
        head = content.read_at(0, min(SIGNATURE, content.size)) if content.size <= max_bytes else b""
        check_head(head, content.size, name, max_bytes, source)
        kind = str(detect_format(head))
        whole = has_header(kind, content.size, content.read_at)
        image = LoadedImage.of_content(content, name=name, source=source) if whole else None
    except Exception as error:
        content.close()
        if isinstance(error, InvalidRequest):
            raise
        raise InvalidRequest(name, source, f"it must be readable: {error}") from error
    if image is None:
        content.close()
        raise InvalidRequest(name, source, f"it must hold a whole image; this is {KIND_NAMES[kind]}, cut in its header")
    return image


def _opened(source: ImageSource, limit: int) -> Content:
    if isinstance(source, str) and is_data_uri(source):
        payload = payload_of(source)
        return MemoryContent(payload) if isinstance(payload, bytes) else DataUriContent(payload)
    if isinstance(source, bytes | bytearray | memoryview):
        return MemoryContent(source)
    if isinstance(source, str | os.PathLike):
        return _open_path(Path(source), limit)
    if type(source) is io.BytesIO:
        return MemoryContent(memoryview(source.getvalue())[source.tell() :])  # it shares its bytes, and copies late
    spool = Spool(limit)
    try:
        if is_pillow(source):
            write_png(cast("Image.Image", source), spool)
        else:
            _read_file(cast("BinaryIO", source), spool)
        return spool.finish()
    finally:
        spool.close()


def _open_path(path: Path, limit: int) -> Content:
    file = path.open("rb", buffering=0)
    try:
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            return MonitoredFile(file, path)
        spool = Spool(limit)  # a pipe or a device, which can be read once
        try:
            _read_to_end(cast("BinaryIO", file), spool)
            content = spool.finish()
        finally:
            spool.close()
    except BaseException:
        file.close()
        raise
    file.close()
    return content


def _read_file(file: BinaryIO, spool: Spool) -> None:
    if not file.seekable():
        _read_to_end(file, spool)
        return
    start = file.tell()
    try:
        _read_to_end(file, spool)
    finally:
        file.seek(start)


def _read_to_end(file: BinaryIO, spool: Spool) -> None:
    """A raw file or a socket gives what is there, which may be less than was asked for: one read is not enough."""
    while data := file.read(min(SPOOL_AT, spool.room)):
        spool.write(data)
