"""A web server that is killed while its images are made: does the next one pay again, or forget them?

``python -m benchmarks.soak.web_server [--store sqlite|postgres|pgbouncer] [--images 24] [--quick]``

Clients request one image for each key. When the store has recorded all tasks as accepted, the server is killed with
SIGKILL and started again, and the clients request the same keys again.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
from attrs import define

from benchmarks.servers.daemons import choose_port
from benchmarks.support.checks import print_checks
from benchmarks.support.server_process import ROOT, start_emulator
from benchmarks.support.stores import Audit, add_store_option, read_store, start_store

if TYPE_CHECKING:
    from collections.abc import Iterator

    from benchmarks.support.server_process import EmulatorClient
    from benchmarks.support.stores import StoreServer

__all__ = ["WebHarness", "run_checks"]


@define
class WebHarness:
    """Runs the web server and its clients.

    Attributes:
        gateway: The emulator.
        store: The store.
        images: The number of keys.
        port: The port of the web server.
    """

    gateway: EmulatorClient
    store: StoreServer
    images: int
    port: int

    @contextmanager
    def server(self) -> Iterator[subprocess.Popen[bytes]]:
        """Run the web server, and kill it after the block."""
        with (self.store.folder / "server.txt").open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.soak.web_server_app", str(self.port)],
                cwd=ROOT,
                env={**os.environ, **self.gateway.environment(), **self.store.environment()},
                stdout=output,
                stderr=output,
            )
        with process:
            try:
                yield process
            finally:
                process.kill()

    async def request_images(self) -> list[str | None]:
        """Request all keys at once; return the task IDs, and None where the server ended or failed."""
        timeout = aiohttp.ClientTimeout(total=60)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(
            f"http://127.0.0.1:{self.port}", timeout=timeout, connector=connector
        ) as client:
            await self.wait_until_serving(client)
            return await asyncio.gather(*(self.request_image(client, number) for number in range(self.images)))

    async def request_image(self, client: aiohttp.ClientSession, number: int) -> str | None:
        """Request one image; return its task ID."""
        try:
            async with client.post(f"/images/key-{number}", data=f"a fox, number {number}") as response:
                text = await response.text()
                if response.status == 200:
                    return text
                print(f"key-{number}: {response.status} {text}")
        except aiohttp.ClientError:
            pass
        return None

    async def wait_until_serving(self, client: aiohttp.ClientSession) -> None:
        """Wait until the server accepts connections."""
        deadline = time.monotonic() + 30
        while True:
            try:
                async with client.get("/"):
                    return
            except aiohttp.ClientError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(0.05)

    async def request_and_kill(self) -> int:
        """Request all keys, kill the server once all tasks are recorded, and return how many clients had a result."""
        with self.server() as process:
            requests = asyncio.create_task(self.request_images())
            deadline = time.monotonic() + 60
            while not requests.done() and time.monotonic() < deadline:
                state = await asyncio.to_thread(read_store, self.store.url)
                if state.states["accepted"] == self.images:
                    break
                await asyncio.sleep(0.1)
            process.kill()
            return sum(result is not None for result in await requests)

    async def request_again(self) -> list[str | None]:
        """Start the server again, and request all keys."""
        with self.server():
            return await self.request_images()


def run_checks(harness: WebHarness) -> dict[str, bool]:
    """Request, kill, request again, and compare with the ledger."""
    early = asyncio.run(harness.request_and_kill())
    accepted = harness.gateway.ledger()["accepted"]
    began = time.perf_counter()
    collected = asyncio.run(harness.request_again())
    print(f"{harness.store.kind}: killed with {accepted} accepted, collected in {time.perf_counter() - began:.1f} s")
    ledger = harness.gateway.ledger()
    audit = Audit.of(ledger, read_store(harness.store.url))
    prompts = {entry["task_id"]: entry["prompt"] for entry in audit.ledger}
    found = sum(prompts.get(task_id or "") == f"a fox, number {number}" for number, task_id in enumerate(collected))
    return {
        f"the server was killed with all {harness.images} accepted, and nobody had a result: {early} had": early == 0
        and accepted == harness.images,
        f"{ledger['billed']} billed, {found} collected by key": ledger["billed"] == found == harness.images,
        "all task IDs are different": max(Counter(collected).values()) == 1,
        **audit.checks(),
    }


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak.web_server", description="Kill a web server, and check what was billed."
    )
    add_store_option(parser)
    parser.add_argument("--images", type=int, default=24, help="keys (default: %(default)s)")
    options = parser.parse_args()
    passed = True
    for kind in options.store or options.stores:
        with (
            tempfile.TemporaryDirectory() as folder,
            start_emulator("--service-time", f"constant:{5 if options.quick else 10}", "--pixels", "256") as gateway,
            start_store(kind, Path(folder)) as store,
        ):
            passed &= print_checks(run_checks(WebHarness(gateway, store, options.images, choose_port())))
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
