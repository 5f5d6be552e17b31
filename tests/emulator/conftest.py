import base64
import io
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import attrs
import pytest
from PIL import Image

from kontext_async.emulator import Emulator


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@attrs.define
class ManualTime:
    now: float = 1_767_965_610.0

    def __call__(self) -> float:
        return self.now

    def turn(self, seconds: float) -> None:
        self.now += seconds


@attrs.frozen
class Reply:
    status: int
    headers: Any
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@attrs.define
class Caller:
    """A plain client that follows nothing and retries nothing."""

    emulator: Emulator
    http: aiohttp.ClientSession

    async def ask(self, method: str, path: str, **more: Any) -> Reply:
        headers = {"Authorization": f"Bearer {self.emulator.api_key}", **more.pop("headers", {})}
        url = path if path.startswith("http") else self.emulator.base_url + path
        if path.startswith("http"):
            headers.pop("Authorization")
        async with self.http.request(method, url, headers=headers, allow_redirects=False, **more) as response:
            return Reply(response.status, response.headers, await response.read())

    async def create(self, prompt: str = "a red fox", **params: Any) -> Reply:
        return await self.ask("POST", "/model/v1/generation", json=body(prompt=prompt, **params))

    async def status(self, task_id: str) -> Reply:
        return await self.ask("GET", f"/model/v1/generation/task/{task_id}")

    async def finished_url(self, **params: Any) -> str:
        """Make a task that is finished at once and return its picture's URL."""
        url: str = (await self.create(**params)).json["output"][0]["content"][0]["url"]
        return url


def body(**params: Any) -> dict[str, Any]:
    return {"model": "flux_kontext_pro", "input": [{"params": params}]}


def picture(kind: str = "PNG", size: tuple[int, int] = (40, 30), **more: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", size, (200, 60, 60)).save(buffer, kind, **more)
    return buffer.getvalue()


def picture_text(**more: Any) -> str:
    return base64.b64encode(picture(**more)).decode()


class Helpers:
    body = staticmethod(body)
    picture = staticmethod(picture)
    picture_text = staticmethod(picture_text)


@pytest.fixture
def helpers() -> type[Helpers]:
    return Helpers


@pytest.fixture
def clock() -> ManualTime:
    return ManualTime()


@pytest.fixture
async def serve() -> AsyncIterator[Callable[..., Any]]:
    """Starts an emulator with small pictures, and returns a caller for it."""
    opened: list[Any] = []

    async def start(**options: Any) -> Caller:
        emulator = Emulator(**{"service_time": 0, "pixels": 64 * 64, **options})
        await emulator.start()
        caller = Caller(emulator, aiohttp.ClientSession())
        opened.append(caller)
        return caller

    yield start
    for caller in opened:
        await caller.http.close()
        await caller.emulator.aclose()
