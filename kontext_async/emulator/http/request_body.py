"""Reads and checks the body of a create request, and fetches the input images that are on this machine."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus
from ipaddress import ip_address
from typing import TYPE_CHECKING

import aiohttp
from aiohttp import web
from attrs import evolve
from yarl import URL

from kontext_async.emulator.http.responder import is_connected
from kontext_async.emulator.http.state import create_brief
from kontext_async.emulator.painting.input_images import MAX_IMAGE_BYTES, InputImage
from kontext_async.emulator.validation import IMAGE_FIELDS, CreateRequest, RuleViolation, parse_image
from kontext_async.emulator.world import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

    from kontext_async.emulator.http.state import GatewayState

    Parse = Callable[[bytes], CreateRequest]

LARGE_BODY = 64 * 1024
"""Bodies of more bytes are parsed on a thread."""

FETCH_SECONDS = 5.0


class BodyLost(Exception):
    """The client disconnected before its whole body arrived."""


class RequestBodyReader:
    """Reads the bodies of create requests, over the shared `state`."""

    def __init__(self, state: GatewayState) -> None:
        self.state = state

    async def read(self, request: web.Request, parse: Parse) -> CreateRequest | Refusal:
        """Read and check the body of a create request, off the loop when that can be slow.

        Raises:
            BodyLost: The client disconnected before its whole body arrived.
        """
        try:
            body = await request.read()
        except (OSError, aiohttp.ClientError) as error:
            raise BodyLost from error
        except web.RequestPayloadError as error:
            if not is_connected(request):
                raise BodyLost from error
            message = "the body cannot be decoded"
            return Refusal(status=HTTPStatus.BAD_REQUEST, code="INVALID_PARAMETER", message=message)
        except web.HTTPRequestEntityTooLarge as error:
            message = error.text or "the body is too large"
            return Refusal(status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE, code="REQUEST_TOO_LARGE", message=message)
        try:
            if len(body) > LARGE_BODY or b"input_image" in body:
                parsed = await self.state.image_cache.run_in_thread(partial(parse, body))
                return await self._load_images(parsed)
            return parse(body)
        except RuleViolation as error:
            return Refusal(status=error.status, code="INVALID_PARAMETER", message=str(error), field=error.field)

    async def _load_images(self, parsed: CreateRequest) -> CreateRequest:
        """Return the request with the images of this machine fetched, and with equal images kept once."""
        images: list[InputImage | str] = []
        for name, image in zip(IMAGE_FIELDS, parsed.images, strict=False):
            loaded = image if isinstance(image, InputImage) else await self._fetch_image(name, image)
            images.append(self.state.inputs.setdefault(loaded, loaded) if isinstance(loaded, InputImage) else loaded)
        return evolve(parsed, images=tuple(images))

    async def _fetch_image(self, field: str, url: str) -> InputImage | str:
        """Return the image of a URL of this machine; the URL itself for any other, which is never fetched."""
        name = self.state.url_signer.extract_name(url, self.state.clock())
        if name is not None:
            data = await self._get_own_image(name)
        elif is_loopback(url):
            data = await fetch(field, url)
        else:
            return url
        return await self.state.image_cache.run_in_thread(partial(parse_image, field, data))

    async def _get_own_image(self, name: str) -> bytes:
        task_id, _, rest = name.partition("/")
        task = self.state.world.find_of_any_key(task_id)
        number = rest.partition(".")[0]
        if task is None or not number.isdecimal():
            return b""
        return await self.state.image_cache.get_image(create_brief(task, int(number)))


def is_loopback(url: str) -> bool:
    """Return whether the host of a URL is this machine."""
    host = URL(url).host or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


async def fetch(field: str, url: str) -> bytes:
    """Fetch an input image from this machine.

    Raises:
        RuleViolation: It could not be fetched.
    """
    timeout = aiohttp.ClientTimeout(total=FETCH_SECONDS)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(url, allow_redirects=False) as response,
        ):
            if response.status != HTTPStatus.OK:
                raise RuleViolation(field, f"could not be fetched: HTTP {response.status}")
            return await _read_bounded(response)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise RuleViolation(field, f"could not be fetched: {type(error).__name__}") from None


async def _read_bounded(response: aiohttp.ClientResponse) -> bytes:
    """Read the body, and stop when it is larger than an image can be."""
    data = bytearray()
    async for piece in response.content.iter_any():
        data += piece
        if len(data) > MAX_IMAGE_BYTES:
            break
    return bytes(data)
