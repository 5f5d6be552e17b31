"""Takes the body of a create in: reads it, checks it, and fetches the input images that are near."""

from __future__ import annotations

from functools import partial
from ipaddress import ip_address
from typing import TYPE_CHECKING

import aiohttp
import attrs
from aiohttp import web
from yarl import URL

from kontext_async.emulator.context import brief_of
from kontext_async.emulator.painter import MAX_IMAGE_BYTES, InputImage
from kontext_async.emulator.validation import IMAGE_FIELDS, CreateRequest, Invalid, image_of
from kontext_async.emulator.world import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from kontext_async.emulator.context import Context

    Parse = Callable[[bytes], CreateRequest]

_HEAVY_BODY = 64 * 1024
_FETCH_SECONDS = 5.0


class BodyLostError(Exception):
    """The client went before its body had come."""


class Intake:
    """Reads create requests, over the shared `context`."""

    def __init__(self, context: Context) -> None:
        self.context = context

    async def read(self, request: web.Request, parse: Parse) -> CreateRequest | Refusal:
        """Read and check a create's body, off the loop when that may take long.

        Raises:
            BodyLostError: The client went before its body had come.
        """
        try:
            body = await request.read()
        except (OSError, aiohttp.ClientError) as error:
            raise BodyLostError from error
        except web.HTTPRequestEntityTooLarge as error:
            return Refusal(status=413, code="REQUEST_TOO_LARGE", message=error.text or "the body is too large")
        try:
            if len(body) > _HEAVY_BODY or b"input_image" in body:
                parsed = await self.context.gallery.run(partial(parse, body))
                return await self._with_images(parsed)
            return parse(body)
        except Invalid as error:
            return Refusal(status=error.status, code="INVALID_PARAMETER", message=str(error))

    async def _with_images(self, parsed: CreateRequest) -> CreateRequest:
        """The request with what can be fetched from this machine fetched, and equal images kept once."""
        images: list[InputImage | str] = []
        for field, image in zip(IMAGE_FIELDS, parsed.images, strict=False):
            found = image if isinstance(image, InputImage) else await self._fetched(field, image)
            images.append(self.context.inputs.setdefault(found, found) if isinstance(found, InputImage) else found)
        return attrs.evolve(parsed, images=tuple(images))

    async def _fetched(self, field: str, url: str) -> InputImage | str:
        """The image behind a URL of this machine; the URL itself for every other: nothing goes out."""
        name = self.context.links.name_in(url, self.context.clock())
        if name is not None:
            data = await self._own_picture(name)
        elif is_loopback(url):
            data = await fetch(field, url)
        else:
            return url
        return await self.context.gallery.run(partial(image_of, field, data))

    async def _own_picture(self, name: str) -> bytes:
        task_id, _, rest = name.partition("/")
        task = self.context.world.of_any_key(task_id)
        number = rest.partition(".")[0]
        if task is None or not number.isdecimal():
            return b""
        return await self.context.gallery.picture(brief_of(task, int(number)))


def is_loopback(url: str) -> bool:
    """Whether a URL points to this machine."""
    host = URL(url).host or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


async def fetch(field: str, url: str) -> bytes:
    """Fetch an input image from this machine.

    Raises:
        Invalid: It could not be fetched.
    """
    timeout = aiohttp.ClientTimeout(total=_FETCH_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(url, allow_redirects=False) as response,
        ):
            if response.status != web.HTTPOk.status_code:
                raise Invalid(field, f"could not be fetched: HTTP {response.status}")
            return await _read_bounded(response)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise Invalid(field, f"could not be fetched: {type(error).__name__}") from None


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    """The body, up to one byte more than an image may have."""
    data = bytearray()
    async for piece in response.content.iter_any():
        data += piece
        if len(data) > MAX_IMAGE_BYTES:
            break
    return bytes(data)
