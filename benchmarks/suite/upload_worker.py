"""Measures one run of `benchmarks.suite.uploads` in its own process.

``python -m benchmarks.suite.upload_worker WAY ADDRESS AT_ONCE REPEATS BYTES``
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import sys
import tempfile
import time
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
from attrs import define, field

from benchmarks.support.measure import CpuLoopWatch
from benchmarks.support.peak_memory import PeakMemory
from kontext_async import KontextRequest, KontextSession, Limits, Settings
from kontext_async.engine.transport import Transport
from kontext_async.engine.uploads import Upload
from kontext_async.gateways import DEFAULT_GATEWAY, make_gateway
from kontext_async.images import LoadedImage
from kontext_async.protocol import encode_create, requests

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from contextlib import AbstractAsyncContextManager

    Send = Callable[[], Awaitable[object]]
    Way = Callable[[str, list[bytes]], AbstractAsyncContextManager[Send]]

__all__: list[str] = []

SETTINGS = Settings(limits=Limits(max_in_flight=32, max_uploads=32))
NAMES = ("input_image", "input_image_2", "input_image_3", "input_image_4")
SIDE_BY_SIDE = 5
"""Turns of each way whose CPU is compared in one process."""


@define
class UploadRun:
    """One run on a watched loop.

    Attributes:
        address: The server's base URL.
        at_once: Requests at once.
        repeats: Consecutive batches of them.
        size: Bytes of each image.
        watch: The selector of the loop.
    """

    address: str
    at_once: int
    repeats: int
    size: int
    watch: CpuLoopWatch = field(factory=CpuLoopWatch)

    def create_images(self) -> list[bytes]:
        """Return the four images."""
        return [b"\xff\xd8\xff\x00" + random.Random(number).randbytes(self.size - 4) for number in range(len(NAMES))]

    async def measure_cpu(self, send: Send) -> float:
        """Return the milliseconds of CPU of one request."""
        began = time.process_time()
        for _ in range(self.repeats):
            await asyncio.gather(*(send() for _ in range(self.at_once)))
        return (time.process_time() - began) * 1e3 / self.at_once / self.repeats

    async def measure_alone(self, way: Way) -> dict[str, float]:
        """Measure the CPU of a request, memory and the longest turns."""
        async with way(self.address, self.create_images()) as send:
            with PeakMemory() as peak:
                await asyncio.sleep(0.01)
                self.watch.reset()
                began = time.perf_counter()
                cpu = await self.measure_cpu(send)
            return {
                "cpu_ms": cpu,
                "memory_mb": peak.megabytes,
                "stall_ms": self.watch.longest * 1e3,
                "stall_cpu_ms": self.watch.longest_cpu * 1e3,
                "seconds": time.perf_counter() - began,
            }

    async def measure_side_by_side(self, ways: dict[str, Way]) -> dict[str, list[float]]:
        """Measure the CPU of a request of several ways, which take turns."""
        runs: dict[str, list[float]] = {name: [] for name in ways}
        images = self.create_images()
        async with AsyncExitStack() as stack:
            sends = {name: await stack.enter_async_context(way(self.address, images)) for name, way in ways.items()}
            for turn in range(SIDE_BY_SIDE):
                for name in sends if turn % 2 else reversed(sends):
                    runs[name].append(await self.measure_cpu(sends[name]))
        return runs


@asynccontextmanager
async def send_encoded(address: str, images: list[bytes], *, turns: bool) -> AsyncIterator[Send]:
    """Send pieces that were encoded beforehand; with `turns`, yield to the loop between two of them."""
    body = encode_create(KontextRequest("edit"), [LoadedImage.of_bytes(image) for image in images])
    pieces = list(body.pieces())
    headers = {"Content-Type": "application/json", "Content-Length": str(body.length)}

    async def stream() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece
            if turns:
                await asyncio.sleep(0)

    async with aiohttp.ClientSession() as http:

        async def send(data: Any = None) -> None:
            options = {"data": data} if data else {"data": stream(), "headers": headers}
            async with http.post(address, **options) as response:
                await response.read()

        await send(b"to open a connection")
        yield send


@asynccontextmanager
async def send_with_transport(address: str, images: list[bytes]) -> AsyncIterator[Send]:
    """Send our body through our transport, which encodes it while it is sent."""
    body = encode_create(KontextRequest("edit"), [LoadedImage.of_bytes(image) for image in images])
    transport = Transport(make_gateway(DEFAULT_GATEWAY, "benchmark", address), "benchmark", SETTINGS, None)
    transport.open()
    request = transport.gateway.create(KontextRequest("to open a connection"), [])
    await transport.create(request, Upload(request.body))
    yield lambda: transport.create(request, Upload(body))
    await transport.aclose()


@asynccontextmanager
async def submit(address: str, images: list[Any]) -> AsyncIterator[Send]:
    """Call `submit`, which also checks the images and computes their fingerprint."""
    async with KontextSession("benchmark", base_url=address, settings=SETTINGS) as session:
        await session.submit("to open a connection")
        yield lambda: session.submit("edit", input_images=images)


@asynccontextmanager
async def submit_paths(address: str, images: list[bytes]) -> AsyncIterator[Send]:
    """Call `submit` with images in files."""
    with tempfile.TemporaryDirectory() as directory:
        files = list(_write_images(images, Path(directory)))
        images.clear()
        async with submit(address, files) as send:
            yield send


def _write_images(images: list[bytes], directory: Path) -> Iterator[Path]:
    for number, image in enumerate(images):
        path = directory / f"{number}.jpg"
        path.write_bytes(image)
        yield path


@asynccontextmanager
async def send_dumped(address: str, images: list[bytes]) -> AsyncIterator[Send]:
    """Send the result of `json.dumps`: the obvious code."""
    async with aiohttp.ClientSession(headers={"Content-Type": "application/json"}) as http:

        async def send() -> None:
            inline = {name: base64.b64encode(image).decode() for name, image in zip(NAMES, images, strict=False)}
            body = {"model": "flux_kontext_pro", "input": [{"params": {"prompt": "edit", **inline}}]}
            async with http.post(address, data=json.dumps(body).encode()) as response:
                await response.read()

        await asyncio.gather(http.post(address, data=b"to open a connection"))
        yield send


WAYS: dict[str, Way] = {
    "floor": partial(send_encoded, turns=False),
    "floor with turns": partial(send_encoded, turns=True),
    "ours": send_with_transport,
    "submit": submit,
    "submit, paths": submit_paths,
    "json.dumps": send_dumped,
}


def main(way: str, address: str, at_once: int, repeats: int, size: int) -> Any:
    """Run one way, or several side by side (``WAY|WAY``), and return the cost."""
    if "stdlib" in sys.argv:
        setattr(requests, "b64encode", base64.b64encode)  # noqa: B010 # the encoder without pybase64
    run = UploadRun(address, at_once, repeats, size)
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(run.watch)) as runner:
        if way in WAYS:
            return runner.run(run.measure_alone(WAYS[way]))
        return runner.run(run.measure_side_by_side({name: WAYS[name] for name in way.split("|")}))


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6]))))
