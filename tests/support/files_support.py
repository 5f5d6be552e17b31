"""A server whose responses are written byte by byte, for downloads from servers that are broken or odd."""

from __future__ import annotations

import asyncio
import io
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from attrs import define, field
from PIL import Image
from session_support import raw_server

from kontext_async import GeneratedImage, KontextSession, Settings
from kontext_async.testing import FAST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping


def encode_image(image_format: str, side: int = 64) -> bytes:
    """Return an image that does not compress to almost nothing."""
    buffer = io.BytesIO()
    Image.effect_noise((side, side), 90).convert("RGB").save(buffer, image_format)
    return buffer.getvalue()


JPEG = encode_image("JPEG")
PNG = encode_image("PNG")
WEBP = encode_image("WEBP")
GIF = encode_image("GIF")


@define
class Reply:
    """A scripted response.

    Attributes:
        raw: All of its bytes, head included.
        stalls: Keep the connection open after it, without reading from it.
    """

    raw: bytes = field(repr=False)
    stalls: bool = False


def reply(
    body: bytes = b"",
    *,
    status: int = 200,
    length: int | None = -1,
    stalls: bool = False,
    headers: Mapping[str, str] | None = None,
) -> Reply:
    """Write a response that closes the connection.

    Args:
        body: The body.
        status: The HTTP status.
        length: The Content-Length; -1 is the size of the body, None leaves it out.
        stalls: See `Reply`.
        headers: More headers.
    """
    lines = [f"HTTP/1.1 {status} Some Reason", "Connection: close"]
    if length is not None:
        lines.append(f"Content-Length: {len(body) if length < 0 else length}")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return Reply("\r\n".join([*lines, "", ""]).encode() + body, stalls)


def chunked(body: bytes, *, is_ended: bool = True, stalls: bool = False) -> Reply:
    """Write a chunked response, with or without its last chunk."""
    chunks = b"".join(
        b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (body[at : at + 1000] for at in range(0, len(body), 1000))
    )
    raw = chunks + (b"0\r\n\r\n" if is_ended else b"")
    return reply(raw, length=None, stalls=stalls, headers={"Transfer-Encoding": "chunked"})


@define
class RawFiles:
    """A running server.

    Attributes:
        replies: The responses to come; the last one is repeated.
        requests: The requests that came: the target, and the headers with their names in lower case.
        address: The server's HTTP address.
    """

    replies: list[Reply]
    requests: list[tuple[str, dict[str, str]]] = field(factory=list)
    address: str = ""

    @property
    def image(self) -> GeneratedImage:
        """An image at this server, which belongs to no task."""
        return GeneratedImage(url=f"{self.address}/fox.jpg")

    def requested(self, name: str) -> list[str | None]:
        """Return a header of each request."""
        return [headers.get(name) for _, headers in self.requests]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read one request, and send the next response."""
        try:
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().rstrip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            self.requests.append((first.split()[1], headers))
            next_reply = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
            writer.write(next_reply.raw)
            await writer.drain()
            if next_reply.stalls:
                await reader.read()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def raw_files(*replies: Reply) -> AsyncIterator[RawFiles]:
    """Serve scripted responses, one for each request."""
    files = RawFiles(list(replies))
    async with raw_server(files.serve) as files.address:
        yield files


def download_session(settings: Settings = FAST) -> KontextSession:
    """Return a session on loopback for downloads only: its gateway does not exist."""
    return KontextSession("the-secret-key", base_url="http://127.0.0.1:9/api", settings=settings)
