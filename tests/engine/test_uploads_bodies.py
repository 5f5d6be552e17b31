"""Bodies are byte for byte what `json.dumps` makes of the same request, whatever the images come from."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from PIL import Image

from kontext_async import InvalidRequest, KontextRequest, Limits
from kontext_async.engine.uploads import UploadLimiter
from kontext_async.images import OneShotReader
from kontext_async.protocol import encode_create, fingerprint

GIF = b"GIF89a" + bytes(range(20))
PIECE = 48 * 1024
FIELDS = ("input_image", "input_image_2", "input_image_3", "input_image_4")


class Trickle:
    """An async reader that gives as little as it likes."""

    def __init__(self, data: bytes, step: int = 10_000) -> None:
        self.data = io.BytesIO(data)
        self.step = step
        self.asked = 0

    async def read(self, size: int = -1) -> bytes:
        self.asked += 1
        await asyncio.sleep(0)
        return self.data.read(min(size, self.step))


class Part:
    """What `aiohttp.web` gives for a part of a form."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    async def read(self, *, decode: bool = False) -> bytes:
        raise AssertionError("it would be in memory at once")

    async def read_chunk(self, size: int = 8192) -> bytes:
        return self._data.read(size)


class Located:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


def in_file(data: bytes, folder: Path) -> Path:
    path = folder / f"{len(list(folder.iterdir()))}.bin"
    path.write_bytes(data)
    return path


def opened_at_three(data: bytes, folder: Path) -> Any:
    file = in_file(b"xyz" + data, folder).open("rb")
    file.seek(3)
    return file


SOURCES: dict[str, Any] = {
    "bytes": lambda data, _: data,
    "bytearray": lambda data, _: bytearray(data),
    "memoryview": lambda data, _: memoryview(data),
    "path": in_file,
    "text": lambda data, folder: str(in_file(data, folder)),
    "path-like": lambda data, folder: Located(in_file(data, folder)),
    "BytesIO": lambda data, _: io.BytesIO(data),
    "file": opened_at_three,
    "raw": lambda data, folder: in_file(data, folder).open("rb", buffering=0),
    "data URI": lambda data, _: f"data:image/gif;base64,{base64.b64encode(data).decode()}",
    "quoted URI": lambda data, _: f"data:;base64,{base64.b64encode(data).decode().replace('=', '%3D')}",
    "reader": lambda data, _: Trickle(data),
    "part": lambda data, _: Part(data),
}
sizes = st.integers(13, 40) | st.builds(
    lambda pieces, offset: pieces * PIECE + offset, st.integers(1, 9), st.integers(-3, 3)
)
given_images = st.lists(st.tuples(sizes, st.sampled_from(sorted(SOURCES))), max_size=4)


async def sent(request: KontextRequest, uploads: UploadLimiter) -> tuple[bytes, int, bool, str]:
    """The body as it goes out, twice; its length, whether the last byte was told of in time, and the fingerprint."""
    async with uploads.open_images(request.input_images) as request_images:
        body = encode_create(request, request_images.images)
        bodies = []
        upload = uploads.upload(body)
        for _ in range(2):
            upload = uploads.upload(body)
            pieces = []
            async for piece in upload:
                pieces.append(piece)
                assert 0 < len(piece) <= 65536
                assert upload.handed_over is (sum(map(len, pieces)) == body.length)
            bodies.append(b"".join(pieces))
        assert bodies[0] == bodies[1]
        return bodies[0], body.length, upload.handed_over, fingerprint(request, request_images.images)


@settings(max_examples=40, deadline=None)
@given(given_images, st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(str.strip))
def test_a_body_is_what_json_dumps_makes(chosen: list[tuple[int, str]], prompt: str) -> None:
    datas = [(GIF + bytes([place]) + b"fox%" * size)[:size] for place, (size, _) in enumerate(chosen)]
    with tempfile.TemporaryDirectory() as folder:
        sources = [SOURCES[way](data, Path(folder)) for data, (_, way) in zip(datas, chosen, strict=True)]
        request = KontextRequest(prompt, input_images=sources, seed=7)
        body, length, handed_over, digest = asyncio.run(sent(request, UploadLimiter(Limits())))
        for source in sources:
            if hasattr(source, "close"):
                source.close()
    encoded = {name: base64.b64encode(data).decode() for name, data in zip(FIELDS, datas, strict=False)}
    meaning = {"model": "flux_kontext_pro", "input": [{"params": {"prompt": prompt, "seed": 7, **encoded}}]}
    assert body == json.dumps(meaning, separators=(",", ":")).encode()
    assert length == len(body)
    assert handed_over
    plain = asyncio.run(sent(KontextRequest(prompt, input_images=datas, seed=7), UploadLimiter(Limits())))
    assert digest == plain[3]


def test_a_pillow_image_is_sent_upright_and_keeps_its_profile() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (60, 20), "red").save(buffer, "JPEG", exif=exif, icc_profile=b"a profile")
    with Image.open(buffer) as picture:
        body = asyncio.run(sent(KontextRequest("edit", input_images=picture), UploadLimiter(Limits())))[0]
    data = base64.b64decode(json.loads(body)["input"][0]["params"]["input_image"])
    with Image.open(io.BytesIO(data)) as read:
        assert read.format == "PNG"
        assert read.size == (20, 60)
        assert read.info["icc_profile"] == b"a profile"


def test_a_cmyk_picture_loses_the_profile_that_does_not_fit_any_more() -> None:
    picture = Image.new("CMYK", (4, 4))
    picture.info["icc_profile"] = b"for print"
    body = asyncio.run(sent(KontextRequest("edit", input_images=picture), UploadLimiter(Limits())))[0]
    data = base64.b64decode(json.loads(body)["input"][0]["params"]["input_image"])
    with Image.open(io.BytesIO(data)) as read:
        assert "icc_profile" not in read.info


def test_a_long_prompt_goes_out_in_pieces() -> None:
    request = KontextRequest("fox " * 50_000)
    assert asyncio.run(sent(request, UploadLimiter(Limits())))[1] > 200_000


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        ("R0lGODlh" + "QUJD" * 30_000 + "====", "base64 is invalid"),
        ("R0lGODlh" + "QUJD" * 30_000 + "QQ==" + "QUJD" * 30_000, "base64 is invalid"),
        ("R0lGODlh" + "QUJD" * 30_000 + "A", "base64 is invalid"),
        ("R0lGODlh" + "QUJD" * 30_000 + "****" + "QUJD" * 30_000, "base64 is invalid"),
        ("R0lGODlh" + "QUJD" * 30_000 + "ääää" + "QUJD" * 30_000, "base64 is invalid"),
    ],
)
def test_a_large_data_uri_that_is_none_is_refused_before_anything_is_sent(payload: str, words: str) -> None:
    async def submit() -> None:
        await sent(KontextRequest("edit", input_images=f"data:;base64,{payload}"), UploadLimiter(Limits()))

    with pytest.raises(InvalidRequest, match=words):
        asyncio.run(submit())


class TestAnAsyncReader:
    async def load(self, reader: Any, **limits: Any) -> bytes:
        request = KontextRequest("edit", input_images=reader)
        return (await sent(request, UploadLimiter(Limits(**limits))))[0]

    @pytest.mark.parametrize("wrap", [Trickle, Part])
    def test_it_is_known_by_how_it_is_read(self, wrap: Any) -> None:
        reader = wrap(GIF)
        request = KontextRequest("edit", input_images=reader)
        (kept,) = request.input_images
        assert isinstance(kept, OneShotReader)
        assert kept.reader is reader
        assert request == KontextRequest("edit", input_images=[reader])
        assert hash(request) == hash(KontextRequest.of(request))
        assert request != KontextRequest("edit", input_images=[wrap(GIF)])

    def test_it_can_be_used_once(self) -> None:
        async def twice() -> None:
            request = KontextRequest("edit", input_images=Trickle(GIF))
            uploads = UploadLimiter(Limits())
            await sent(request, uploads)
            await sent(KontextRequest.of(request, seed=2), uploads)

        with pytest.raises(InvalidRequest, match="read once, when its request is submitted; make a new request"):
            asyncio.run(twice())

    def test_one_that_was_read_elsewhere_says_so(self) -> None:
        reader = Trickle(GIF)
        asyncio.run(self.load(reader))
        with pytest.raises(InvalidRequest, match="gives nothing more"):
            asyncio.run(self.load(reader))

    def test_no_more_is_read_than_may_be_sent(self) -> None:
        reader = Trickle(GIF + bytes(10_000_000), 1 << 20)
        with pytest.raises(InvalidRequest, match="at most 300000 bytes"):
            asyncio.run(self.load(reader, max_image_bytes=300_000))
        assert reader.data.tell() == 300_001

    @pytest.mark.parametrize("size", [256 * 1024, 256 * 1024 + 1, 1_000_000])
    def test_a_limit_is_kept_exactly(self, size: int) -> None:
        data = GIF.ljust(size, b"\0")
        assert base64.b64encode(data) in asyncio.run(self.load(Trickle(data, 1 << 20), max_image_bytes=size))

    @pytest.mark.parametrize("chunk", [7, "text", ["a"]])
    def test_one_that_gives_no_bytes_is_refused(self, chunk: Any) -> None:
        class Odd:
            async def read(self, size: int = -1) -> Any:
                return chunk

        with pytest.raises(InvalidRequest, match="must be readable"):
            asyncio.run(self.load(Odd()))

    def test_one_that_raises_is_refused(self) -> None:
        class Broken:
            async def read(self, size: int = -1) -> bytes:
                raise ConnectionResetError("the client has gone")

        with pytest.raises(InvalidRequest, match="the client has gone") as caught:
            asyncio.run(self.load(Broken()))
        assert isinstance(caught.value.__cause__, ConnectionResetError)

    def test_what_it_gives_is_judged(self) -> None:
        for data in (b"a few words that are no image", b"few" * 200_000):
            with pytest.raises(InvalidRequest, match="it must hold an image"):
                asyncio.run(self.load(Trickle(data)))
