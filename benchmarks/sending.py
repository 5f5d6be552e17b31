"""One run of `benchmarks.uploads`, in a process of its own.

``python -m benchmarks.sending WAY ADDRESS AT_ONCE REPEATS BYTES``
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

from benchmarks.measuring import LoopWatch
from benchmarks.resident import Peak
from kontext_async import KontextRequest, KontextSession, Limits, Settings
from kontext_async.engine.transport import Transport
from kontext_async.engine.uploads import Upload
from kontext_async.images import LoadedImage
from kontext_async.protocol import encode_create, requests

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from contextlib import AbstractAsyncContextManager
    from selectors import SelectorKey

    Send = Callable[[], Awaitable[object]]
    Way = Callable[[str, list[bytes]], AbstractAsyncContextManager[Send]]

__all__: list[str] = []

SETTINGS = Settings(limits=Limits(max_in_flight=32, max_uploads=32))
NAMES = ("input_image", "input_image_2", "input_image_3", "input_image_4")
SIDE_BY_SIDE = 5
"""How often those take turns whose CPU is compared, in one process."""


class TurnWatch(LoopWatch):
    """Knows the longest turn of the loop by the clock, and by the CPU that it took: others may use this machine, too.

    Attributes:
        longest_cpu: Seconds of CPU of the turn that took most.
    """

    def __init__(self) -> None:
        super().__init__()
        self.longest_cpu = 0.0
        self._cpu_since = time.thread_time()

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        self.longest_cpu = max(self.longest_cpu, time.thread_time() - self._cpu_since)
        ready = super().select(timeout)
        self._cpu_since = time.thread_time()
        return ready

    def restart(self) -> None:
        super().restart()
        self.longest_cpu = 0.0


@define
class Run:
    """One run: what it is to do, on a loop that is watched."""

    address: str
    at_once: int
    repeats: int
    size: int
    watch: TurnWatch = field(factory=TurnWatch)

    def images(self) -> list[bytes]:
        """The four images."""
        return [b"\xff\xd8\xff\x00" + random.Random(place).randbytes(self.size - 4) for place in range(len(NAMES))]

    async def cpu_of(self, send: Send) -> float:
        """Milliseconds of CPU of one request."""
        began = time.process_time()
        for _ in range(self.repeats):
            await asyncio.gather(*(send() for _ in range(self.at_once)))
        return (time.process_time() - began) * 1e3 / self.at_once / self.repeats

    async def whole(self, way: Way) -> dict[str, float]:
        """CPU of a request, memory and the longest turns."""
        async with way(self.address, self.images()) as send:
            with Peak() as peak:
                await asyncio.sleep(0.01)
                self.watch.restart()
                began = time.perf_counter()
                cpu = await self.cpu_of(send)
            return {
                "cpu_ms": cpu,
                "memory_mb": peak.megabytes,
                "stall_ms": self.watch.longest * 1e3,
                "stall_cpu_ms": self.watch.longest_cpu * 1e3,
                "seconds": time.perf_counter() - began,
            }

    async def side_by_side(self, ways: dict[str, Way]) -> dict[str, list[float]]:
        """CPU of a request of each of several ways, which take turns."""
        taken: dict[str, list[float]] = {name: [] for name in ways}
        images = self.images()
        async with AsyncExitStack() as stack:
            sends = {name: await stack.enter_async_context(way(self.address, images)) for name, way in ways.items()}
            for turn in range(SIDE_BY_SIDE):
                for name in sends if turn % 2 else reversed(sends):
                    taken[name].append(await self.cpu_of(sends[name]))
        return taken


@asynccontextmanager
async def floor(address: str, images: list[bytes], *, turns: bool) -> AsyncIterator[Send]:
    """The pieces were encoded beforehand; with or without a turn for others between two of them."""
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
            given = {"data": data} if data else {"data": stream(), "headers": headers}
            async with http.post(address, **given) as answer:
                await answer.read()

        await send(b"to open a connection")
        yield send


@asynccontextmanager
async def ours(address: str, images: list[bytes]) -> AsyncIterator[Send]:
    """Our body through our transport, encoded while it is sent."""
    body = encode_create(KontextRequest("edit"), [LoadedImage.of_bytes(image) for image in images])
    transport = Transport("benchmark", address, SETTINGS, None)
    transport.open()
    await transport.create(Upload(encode_create(KontextRequest("to open a connection"), [])))
    yield lambda: transport.create(Upload(body))
    await transport.aclose()


@asynccontextmanager
async def session(address: str, images: list[Any]) -> AsyncIterator[Send]:
    """All that `submit` does: checks and fingerprint, too."""
    async with KontextSession("benchmark", base_url=address, settings=SETTINGS) as running:
        await running.submit("to open a connection")
        yield lambda: running.submit("edit", input_images=images)


@asynccontextmanager
async def from_paths(address: str, images: list[bytes]) -> AsyncIterator[Send]:
    """The same, from files."""
    with tempfile.TemporaryDirectory() as directory:
        files = list(_written(images, Path(directory)))
        images.clear()
        async with session(address, files) as send:
            yield send


def _written(images: list[bytes], directory: Path) -> Iterator[Path]:
    for place, image in enumerate(images):
        path = directory / f"{place}.jpg"
        path.write_bytes(image)
        yield path


@asynccontextmanager
async def dumps(address: str, images: list[bytes]) -> AsyncIterator[Send]:
    """What one writes first."""
    async with aiohttp.ClientSession(headers={"Content-Type": "application/json"}) as http:

        async def send() -> None:
            inline = {name: base64.b64encode(image).decode() for name, image in zip(NAMES, images, strict=False)}
            body = {"model": "flux_kontext_pro", "input": [{"params": {"prompt": "edit", **inline}}]}
            async with http.post(address, data=json.dumps(body).encode()) as answer:
                await answer.read()

        await asyncio.gather(http.post(address, data=b"to open a connection"))
        yield send


WAYS: dict[str, Way] = {
    "floor": partial(floor, turns=False),
    "floor with turns": partial(floor, turns=True),
    "ours": ours,
    "submit": session,
    "submit, paths": from_paths,
    "json.dumps": dumps,
}


def main(way: str, address: str, at_once: int, repeats: int, size: int) -> Any:
    """What one run took."""
    if "stdlib" in sys.argv:
        setattr(requests, "b64encode", base64.b64encode)  # noqa: B010 # what it is where pybase64 is not installed
    run = Run(address, at_once, repeats, size)
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(run.watch)) as runner:
        if way in WAYS:
            return runner.run(run.whole(WAYS[way]))
        return runner.run(run.side_by_side({name: WAYS[name] for name in way.split("|")}))


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6]))))
