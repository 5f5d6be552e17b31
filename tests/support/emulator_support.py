"""A client, a clock and requests for tests of the emulator over HTTP."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Any, Protocol

from attrs import define, frozen
from image_support import make_image

if TYPE_CHECKING:
    from collections.abc import Mapping

    import aiohttp

    from kontext_async.emulator import Emulator

GENERATION_PATH = "/model/v1/generation"
QUEUE_PATH = "/model/v1/queue/flux_kontext_pro"


@define
class ManualTime:
    """A clock that stands still until it is advanced by hand."""

    now: float = 1_767_965_610.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@frozen
class Reply:
    """A response that was read to its end."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@define
class Caller:
    """A plain client that follows no redirect and retries nothing."""

    emulator: Emulator
    http: aiohttp.ClientSession

    async def request(self, method: str, path: str, **options: Any) -> Reply:
        """Send a request to a path of the API with the key, or to a URL without it."""
        headers = {"Authorization": f"Bearer {self.emulator.api_key}", **options.pop("headers", {})}
        url = path if path.startswith("http") else self.emulator.base_url + path
        if path.startswith("http"):
            headers.pop("Authorization")
        async with self.http.request(method, url, headers=headers, allow_redirects=False, **options) as response:
            return Reply(response.status, response.headers, await response.read())

    async def create(self, prompt: str = "a red fox", **params: Any) -> Reply:
        return await self.request("POST", GENERATION_PATH, json=create_body(prompt=prompt, **params))

    async def get_status(self, task_id: str) -> Reply:
        return await self.request("GET", f"{GENERATION_PATH}/task/{task_id}")

    async def create_image_url(self, **params: Any) -> str:
        """Create a task that completes immediately, and return the URL of its image."""
        url: str = (await self.create(**params)).json["output"][0]["content"][0]["url"]
        return url


class Serve(Protocol):
    """Starts an emulator with small images, and returns a caller for it."""

    async def __call__(self, **options: Any) -> Caller: ...


def create_body(**params: Any) -> dict[str, Any]:
    """Return the body of a create request in the plain dialect."""
    return {"model": "flux_kontext_pro", "input": [{"params": params}]}


async def begin_create(caller: Caller) -> asyncio.StreamWriter:
    """Open a connection and send the head of a create request, with the body still to come."""
    port = int(caller.emulator.base_url.rpartition(":")[2])
    _, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST {GENERATION_PATH} HTTP/1.1",
        "Host: x",
        f"Authorization: Bearer {caller.emulator.api_key}",
        "Content-Length: 500",
    )
    writer.write("\r\n".join((*head, "", "")).encode())
    return writer


def make_image_text(image_format: str = "PNG", **options: Any) -> str:
    """Return a small image in base64."""
    return base64.b64encode(make_image(image_format, **options)).decode()
