"""Prepares a source to be sent: opens it, validates its bytes, and computes its digest."""

from __future__ import annotations

import errno
import io
import os
import re
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, BinaryIO, cast

from kontext_async.base_errors import InvalidRequest
from kontext_async.images.contents import DataUriContent, LoadedImage, MemoryContent
from kontext_async.images.data_uris import is_data_uri, parse_data_uri
from kontext_async.images.files import (
    AT_END,
    Unreadable,
    accepts_size,
    open_path,
    read_file,
    read_openable,
    resolve_path,
    spool_from,
)
from kontext_async.images.formats import FORMAT_NAMES, MAX_IMAGE_BYTES, SIGNATURE_LENGTH, detect_format, has_header
from kontext_async.images.pillow import write_png
from kontext_async.images.sources import OneShotReader, check_head, is_openable, is_pillow, refuse
from kontext_async.images.spooling import Spool, TooLarge
from kontext_async.images.urls import is_url
from kontext_async.redaction import clean_text

if TYPE_CHECKING:
    from PIL import Image

    from kontext_async.images.contents import Content
    from kontext_async.images.sources import ImageSource

__all__ = ["load", "load_reader", "open_content", "read_content"]

READ_BYTES = 64 * 1024
"""Bytes that are read at once from an async reader."""

BASE64_STARTS = ("iVBORw0KGgo", "/9j/", "R0lGOD", "UklGR")
"""The first characters of images in base64: PNG, JPEG, GIF, WebP."""

URL_AS_PATH = re.compile(r"(https?|data):", re.IGNORECASE)
QUERY = re.compile(r"(://)(?:[^\s/@]*@)?([^\s?#'\"]*)(?:[?#][^\s'\"]*)?")
"""A URL in a text, with its user and its query, which may contain secrets."""


def load(source: ImageSource, name: str, max_bytes: int = MAX_IMAGE_BYTES) -> LoadedImage:
    """Open and validate a source. Blocks: files are read in full, Pillow images are encoded as PNG.

    The caller closes the image. Bytes and data URIs are not copied, and files are not kept in memory.

    Args:
        source: A source that passed `check`, but not an async reader: see `load_reader`.
        name: The field name, for the error.
        max_bytes: The largest allowed size, in bytes.

    Raises:
        InvalidRequest: The source is unreadable, empty, too large, or not an image in an accepted format.
    """
    if is_url(source):
        return LoadedImage.of_url(source, name=name)
    return _validate(open_content(source, name, max_bytes), source, name, max_bytes)


async def load_reader(source: OneShotReader, name: str, max_bytes: int = MAX_IMAGE_BYTES) -> LoadedImage:
    """Read an async reader to its end and validate the image. The caller closes it.

    Raises:
        InvalidRequest: As `load`; also, the reader was read before.
    """
    from anyio import to_thread  # noqa: PLC0415 # 40 ms of import that a request without a session does not need

    content = await read_content(source, name, max_bytes)
    if not content.on_disk:
        return _validate(content, source.reader, name, max_bytes)
    try:
        return await to_thread.run_sync(_validate, content, source.reader, name, max_bytes)
    except BaseException:
        content.close()
        raise


def open_content(source: ImageSource, name: str, max_bytes: int) -> Content:
    """Open a source without validating its bytes. Blocks.

    Raises:
        InvalidRequest: The source is unreadable or too large.
    """
    if isinstance(source, OneShotReader):
        raise refuse(name, source.reader, "it must be awaited, which is impossible here; pass its bytes")
    try:
        return _open(source, max_bytes)
    except Exception as error:  # files and images of the user's own classes may raise anything
        raise _translate_error(error, source, name, max_bytes) from error


async def read_content(source: OneShotReader, name: str, max_bytes: int) -> Content:
    """Read an async reader to its end without validating its bytes. Disks are used in a thread.

    Raises:
        InvalidRequest: The reader was read before, is unreadable, empty or too large.
    """
    if source.used:
        rule = "an async reader is read once, when its request is submitted; make a new request with a new reader"
        raise refuse(name, source.reader, rule)
    source.used = True
    spool = Spool(max_bytes)
    try:
        await _fill_spool(spool, source.reader)
        content = spool.finish()
    except Exception as error:  # readers of the user's own classes may raise anything
        raise _translate_error(error, source.reader, name, max_bytes) from error
    finally:
        spool.close()
    if not content.size:
        rule = "an image must not be empty; an async reader that was read to its end gives nothing more"
        raise refuse(name, source.reader, rule)
    return content


async def _fill_spool(spool: Spool, reader: Any) -> None:
    from anyio import to_thread  # noqa: PLC0415 # as above

    read = getattr(reader, "read_chunk", None) or reader.read
    is_sized = accepts_size(read)
    while True:
        data = await (read(min(READ_BYTES, spool.room)) if is_sized else read())
        if spool.fits_memory(data):
            spool.write(data)
        else:
            await to_thread.run_sync(spool.write, data)
        if not data or not is_sized:
            break
    if spool.on_disk:
        await to_thread.run_sync(spool.flush)


def _translate_error(error: Exception, source: object, name: str, max_bytes: int) -> InvalidRequest:
    if isinstance(error, TooLarge):
        return refuse(name, source, f"an image may have at most {max_bytes} bytes")
    return refuse(name, source, f"it must be readable: {_describe(error)}{_hint_at(error, source)}")


def _describe(error: Exception) -> str:
    """Return the reason of an error on one line, without secrets that a URL in it may contain."""
    reason = error.strerror if isinstance(error, OSError) else None
    if not reason:
        reason = str(error) if isinstance(error, ValueError | TypeError) else f"{type(error).__name__}: {error}"
    return clean_text(QUERY.sub(r"\1\2", reason))


def _hint_at(error: Exception, source: object) -> str:
    """Return a remark on a path that does not exist, because it is something else."""
    if isinstance(error, OSError) and error.errno in {errno.ENOENT, errno.ENAMETOOLONG, errno.ENOTDIR}:
        if isinstance(source, PurePath) and URL_AS_PATH.match(str(source)):
            return "; a URL must be text, not a path object"
        if isinstance(source, str) and source.startswith(BASE64_STARTS):
            return "; base64 needs a data: URI"
    return ""


def _validate(content: Content, source: object, name: str, max_bytes: int) -> LoadedImage:
    """Refuse an image that the gateway would refuse, or else compute its digest; close the content on an error."""
    try:
        head = content.read_at(0, min(SIGNATURE_LENGTH, content.size)) if content.size <= max_bytes else b""
        check_head(head, content.size, name, max_bytes, source)
        image_format = str(detect_format(head))
        is_whole = has_header(image_format, content.size, content.read_at)
        image = LoadedImage.of_content(content, name=name, source=source) if is_whole else None
    except Exception as error:
        content.close()
        if isinstance(error, InvalidRequest):
            raise
        raise _translate_error(error, source, name, max_bytes) from error
    if image is None:
        content.close()
        rule = f"it must hold a whole image; this is {FORMAT_NAMES[image_format]}, cut in its header"
        raise refuse(name, source, rule)
    return image


def _open(source: ImageSource, limit: int) -> Content:
    if isinstance(source, str) and is_data_uri(source):
        payload = parse_data_uri(source)
        return MemoryContent(payload) if isinstance(payload, bytes) else DataUriContent(payload)
    if isinstance(source, bytes | bytearray | memoryview):
        return MemoryContent(source)
    if isinstance(source, str | os.PathLike):
        return open_path(resolve_path(source), limit)
    if type(source) is io.BytesIO:
        return _open_buffer(source)
    if is_pillow(source):
        return spool_from(lambda target: write_png(cast("Image.Image", source), target), limit)
    return read_openable(source, limit) if is_openable(source) else read_file(cast("BinaryIO", source), limit)


def _open_buffer(source: io.BytesIO) -> Content:
    position = source.tell()
    content = MemoryContent(memoryview(source.getvalue())[position:])  # copied only if it changes
    if position and not content.size:
        raise Unreadable(AT_END.format(position))
    return content
