from __future__ import annotations

import asyncio
import contextlib
import gzip
import io
from typing import TYPE_CHECKING

import aiohttp
import pytest
from PIL import Image

from kontext_async.emulator import Fault
from kontext_async.emulator.file_faults import accepts

if TYPE_CHECKING:
    from emulator_support import Serve

pytestmark = pytest.mark.anyio


async def test_range_requests_are_refused_and_others_are_served(serve: Serve) -> None:
    caller = await serve()
    url = await caller.create_image_url()
    caller.emulator.faults.script("download", ["range-refused", Fault(kind="range-refused", status=500), None])
    assert (await caller.request("GET", url)).status == 200
    assert (await caller.request("GET", url, headers={"Range": "bytes=10-"})).status == 500
    assert (await caller.request("GET", url, headers={"Range": "bytes=10-"})).status == 206


@pytest.mark.parametrize("variant", ["etag", "total"])
async def test_a_part_is_of_another_file(serve: Serve, variant: str) -> None:
    caller = await serve()
    url = await caller.create_image_url()
    whole = await caller.request("GET", url)
    caller.emulator.faults.script("download", [Fault(kind="range-of-another-file", variant=variant)])
    headers = {"Range": "bytes=10-", "If-Range": whole.headers["ETag"]}
    part = await caller.request("GET", url, headers=headers)
    assert part.status == 206
    assert part.body != whole.body[10:]
    assert (part.headers["ETag"] != whole.headers["ETag"]) == (variant == "etag")
    total = int(part.headers["Content-Range"].rpartition("/")[2])
    assert (total != len(whole.body)) == (variant == "total")


async def test_bytes_follow_the_end_of_an_image(serve: Serve) -> None:
    caller = await serve()
    url = await caller.create_image_url()
    whole = (await caller.request("GET", url)).body
    caller.emulator.faults.script("download", ["trailing-bytes"])
    reply = await caller.request("GET", url)
    assert reply.body.startswith(whole)
    assert len(reply.body) > len(whole)
    assert int(reply.headers["Content-Length"]) == len(reply.body)
    Image.open(io.BytesIO(reply.body)).load()


async def test_a_file_is_encoded(serve: Serve) -> None:
    caller = await serve()
    url = await caller.create_image_url()
    whole = (await caller.request("GET", url)).body
    caller.emulator.faults.script("download", [Fault(kind="encoded-file", variant="whole")])
    async with aiohttp.ClientSession(auto_decompress=False) as http, http.get(url) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        assert gzip.decompress(await response.read()) == whole
    caller.emulator.faults.script("download", [Fault(kind="encoded-file", variant="halfway")] * 2)
    with pytest.raises(aiohttp.ClientError):
        await caller.request("GET", url)


@pytest.mark.parametrize(
    ("variant", "accept", "content_type"),
    [
        ("avif", "image/*", "image/avif"),
        ("heic", "*/*", "image/heic"),
        ("avif", "image/jpeg, image/png;q=0.9, image/webp", "image/jpeg"),
        ("forced-avif", "image/jpeg", "image/avif"),
        ("forced-heic", "image/jpeg", "image/heic"),
    ],
)
async def test_the_format_is_negotiated(serve: Serve, variant: str, accept: str, content_type: str) -> None:
    caller = await serve()
    url = await caller.create_image_url()
    caller.emulator.faults.script("download", [Fault(kind="negotiated-format", variant=variant)])
    reply = await caller.request("GET", url, headers={"Accept": accept})
    assert reply.headers["Content-Type"] == content_type
    if content_type != "image/jpeg":
        assert reply.body[4:12] == b"ftyp" + content_type.partition("/")[2].encode()


def test_an_accept_header_permits_types() -> None:
    assert accepts("", "image/avif")
    assert accepts("text/html, image/*;q=0.5", "image/avif")
    assert not accepts("image/jpeg,image/png", "image/avif")


@pytest.mark.parametrize(("kind", "longest", "count"), [("large-header", 9 * 1024, 5), ("many-headers", 10, 130)])
async def test_a_file_has_large_headers(serve: Serve, kind: str, longest: int, count: int) -> None:
    caller = await serve()
    target = (await caller.create_image_url()).removeprefix(caller.emulator.files_url)
    caller.emulator.faults.script("download", [kind])
    port = int(caller.emulator.files_url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    head = (await reader.read()).partition(b"\r\n\r\n")[0].split(b"\r\n")
    writer.close()
    assert max(map(len, head)) > longest
    assert len(head) > count


@pytest.mark.parametrize("kind", ["length-too-long", "missing-last-chunk", "short-body"])
async def test_the_framing_of_a_file_is_wrong(serve: Serve, kind: str) -> None:
    caller = await serve()
    url = await caller.create_image_url()
    whole = (await caller.request("GET", url)).body
    caller.emulator.faults.script("download", [kind] * 2)
    received = bytearray()
    async with aiohttp.ClientSession() as http, http.get(url) as response:
        with contextlib.suppress(aiohttp.ClientError):
            async for piece in response.content.iter_any():
                received += piece
            pytest.fail("the framing is right")
    assert (bytes(received) == whole) == (kind != "short-body")


async def test_a_fresh_file_is_not_there_for_a_moment(serve: Serve) -> None:
    caller = await serve()
    url = await caller.create_image_url()
    caller.emulator.faults.script("download", ["not-found", Fault(kind="http-status", status=202), None])
    assert [(await caller.request("GET", url)).status for _ in range(3)] == [404, 202, 200]
