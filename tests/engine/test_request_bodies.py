"""Request bodies equal `json.dumps` of the request byte for byte, for every kind of image source."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import pytest
from attrs import frozen
from hypothesis import given, settings, strategies as st
from PIL import Image
from upload_support import input_image_of

from kontext_async import GatewayUnavailable, InvalidRequest, KontextRequest, Limits
from kontext_async.engine.uploads import Upload, UploadLimiter
from kontext_async.images import OneShotReader
from kontext_async.protocol import encode_create, fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable

    from kontext_async import ImageSource

GIF = b"GIF89a" + bytes(range(20))
PIECE = 48 * 1024
FIELDS = ("input_image", "input_image_2", "input_image_3", "input_image_4")


class ShortReader:
    """An async reader that returns fewer bytes than requested.

    Attributes:
        data: The bytes.
        step: The most bytes that one call returns.
    """

    def __init__(self, data: bytes, step: int = 10_000) -> None:
        self.data = io.BytesIO(data)
        self.step = step

    async def read(self, size: int = -1) -> bytes:
        await asyncio.sleep(0)
        return self.data.read(min(size, self.step))


class FormPart:
    """An async reader like the form parts of `aiohttp.web`."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    async def read(self, *, decode: bool = False) -> bytes:
        raise AssertionError("this would load the whole part at once")

    async def read_chunk(self, size: int = 8192) -> bytes:
        return self._data.read(size)


class PathLikeSource:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)


def write_file(data: bytes, folder: Path) -> Path:
    """Write a new file into a folder."""
    path = folder / f"{len(list(folder.iterdir()))}.bin"
    path.write_bytes(data)
    return path


def open_at_offset(data: bytes, folder: Path) -> BinaryIO:
    """Return an open file whose position is not its start."""
    file = write_file(b"xyz" + data, folder).open("rb")
    file.seek(3)
    return file


SOURCES: dict[str, Callable[[bytes, Path], ImageSource]] = {
    "bytes": lambda data, _: data,
    "bytearray": lambda data, _: bytearray(data),
    "memoryview": lambda data, _: memoryview(data),
    "path": write_file,
    "text": lambda data, folder: str(write_file(data, folder)),
    "path-like": lambda data, folder: PathLikeSource(write_file(data, folder)),
    "BytesIO": lambda data, _: io.BytesIO(data),
    "file": open_at_offset,
    "raw": lambda data, folder: write_file(data, folder).open("rb", buffering=0),
    "data URI": lambda data, _: f"data:image/gif;base64,{base64.b64encode(data).decode()}",
    "quoted URI": lambda data, _: f"data:;base64,{base64.b64encode(data).decode().replace('=', '%3D')}",
    "reader": lambda data, _: ShortReader(data),
    "part": lambda data, _: FormPart(data),
}
sizes = st.integers(13, 40) | st.builds(
    lambda pieces, offset: pieces * PIECE + offset, st.integers(1, 9), st.integers(-3, 3)
)
given_images = st.lists(st.tuples(sizes, st.sampled_from(sorted(SOURCES))), max_size=4)


@frozen
class Sent:
    """A body as it was sent.

    Attributes:
        body: The bytes.
        length: The announced length.
        handed_over: True if the upload reported its last byte.
        fingerprint: The request's fingerprint.
    """

    body: bytes
    length: int
    handed_over: bool
    fingerprint: str


async def send(request: KontextRequest, uploads: UploadLimiter) -> Sent:
    """Produce a request's body twice; check that both are equal and that the last byte is reported in time."""
    with await uploads.open_images(request.input_images) as request_images:
        body = encode_create(request, request_images.images)
        first, second = uploads.upload(body), uploads.upload(body)
        sent = await join_pieces(first, body.length)
        assert await join_pieces(second, body.length) == sent
        return Sent(sent, body.length, second.handed_over, fingerprint(request, request_images.images))


def test_a_body_of_one_piece_is_handed_over_at_once() -> None:
    started: list[str] = []
    body = encode_create(KontextRequest("a fox"), ())
    upload = UploadLimiter(Limits()).upload(body, lambda: started.append("on_start"))
    assert upload.whole == b'{"model":"flux_kontext_pro","input":[{"params":{"prompt":"a fox"}}]}'
    assert upload.length == len(upload.whole)
    assert not upload.handed_over
    upload.hand_over()
    assert started == ["on_start"]
    assert upload.handed_over


def test_a_body_that_must_not_be_sent_is_not_handed_over() -> None:
    def refuse() -> None:
        raise GatewayUnavailable("its caller left")

    upload = UploadLimiter(Limits()).upload(encode_create(KontextRequest("a fox"), ()), refuse)
    with pytest.raises(GatewayUnavailable) as caught:
        upload.hand_over()
    assert upload.failure is caught.value
    assert not upload.handed_over


def test_a_body_of_a_long_prompt_is_not_whole() -> None:
    body = encode_create(KontextRequest("fox " * 50_000), ())
    assert body.whole is None
    assert [len(piece) for piece in body.pieces()][:2] == [65536, 65536]
    assert json.loads(b"".join(body.pieces()))["input"][0]["params"]["prompt"] == "fox " * 50_000


async def join_pieces(upload: Upload, length: int) -> bytes:
    """Return the pieces of an upload; check that it reports its last byte in time."""
    pieces: list[bytes] = []
    async for piece in upload:
        pieces.append(piece)
        assert 0 < len(piece) <= 65536
        assert upload.handed_over is (sum(map(len, pieces)) == length)
    return b"".join(pieces)


def send_now(request: KontextRequest, **limits: Any) -> Sent:
    """Produce a request's body under limits of its own."""
    return asyncio.run(send(request, UploadLimiter(Limits(**limits))))


@settings(max_examples=40, deadline=None)
@given(given_images, st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(str.strip))
def test_a_body_equals_json_dumps(chosen: list[tuple[int, str]], prompt: str) -> None:
    datas = [(GIF + bytes([place]) + b"fox%" * size)[:size] for place, (size, _) in enumerate(chosen)]
    with tempfile.TemporaryDirectory() as folder:
        sources = [SOURCES[kind](data, Path(folder)) for data, (_, kind) in zip(datas, chosen, strict=True)]
        request = KontextRequest(prompt, input_images=sources, seed=7)
        sent = send_now(request)
        for source in sources:
            if isinstance(source, io.IOBase):
                source.close()
    encoded = {name: base64.b64encode(data).decode() for name, data in zip(FIELDS, datas, strict=False)}
    expected = {"model": "flux_kontext_pro", "input": [{"params": {"prompt": prompt, "seed": 7, **encoded}}]}
    assert sent.body == json.dumps(expected, separators=(",", ":")).encode()
    assert sent.length == len(sent.body)
    assert sent.handed_over
    plain = send_now(KontextRequest(prompt, input_images=datas, seed=7))
    assert sent.fingerprint == plain.fingerprint


def test_a_pillow_image_is_sent_upright_and_keeps_its_profile() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.new("RGB", (60, 20), "red").save(buffer, "JPEG", exif=exif, icc_profile=b"a profile")
    with Image.open(buffer) as image:
        body = send_now(KontextRequest("edit", input_images=image)).body
    with Image.open(io.BytesIO(input_image_of(body))) as read:
        assert read.format == "PNG"
        assert read.size == (20, 60)
        assert read.info["icc_profile"] == b"a profile"


def test_a_cmyk_image_loses_its_profile() -> None:
    """It is sent as RGB, which the profile does not describe."""
    image = Image.new("CMYK", (4, 4))
    image.info["icc_profile"] = b"for print"
    body = send_now(KontextRequest("edit", input_images=image)).body
    with Image.open(io.BytesIO(input_image_of(body))) as read:
        assert "icc_profile" not in read.info


def test_a_long_prompt_is_sent_in_pieces() -> None:
    request = KontextRequest("fox " * 50_000)
    assert send_now(request).length > 200_000


@pytest.mark.parametrize(
    "payload",
    [
        "R0lGODlh" + "QUJD" * 30_000 + "====",
        ("R0lGODlh" + "QUJD" * 30_000 + "QQ==" + "QUJD" * 30_000, "base64 is invalid"),
        "R0lGODlh" + "QUJD" * 30_000 + "A",
        ("R0lGODlh" + "QUJD" * 30_000 + "****" + "QUJD" * 30_000, "base64 is invalid"),
        ("R0lGODlh" + "QUJD" * 30_000 + "ääää" + "QUJD" * 30_000, "base64 is invalid"),
    ],
)
def test_a_large_data_uri_with_invalid_base64_is_refused_before_a_byte_is_sent(payload: str) -> None:
    with pytest.raises(InvalidRequest, match="base64 is invalid"):
        send_now(KontextRequest("edit", input_images=f"data:;base64,{payload}"))


def send_reader(reader: Any, **limits: int) -> bytes:
    """Produce the body of a request whose image is an async reader."""
    return send_now(KontextRequest("edit", input_images=reader), **limits).body


class TestAsyncReader:
    @pytest.mark.parametrize("new_reader", [ShortReader, FormPart])
    def test_a_reader_is_an_image_equal_to_itself_only(self, new_reader: Callable[[bytes], Any]) -> None:
        reader = new_reader(GIF)
        request = KontextRequest("edit", input_images=reader)
        (kept,) = request.input_images
        assert isinstance(kept, OneShotReader)
        assert kept.reader is reader
        assert request == KontextRequest("edit", input_images=[reader])
        assert hash(request) == hash(KontextRequest.of(request))
        assert request != KontextRequest("edit", input_images=[new_reader(GIF)])

    def test_a_reader_can_be_sent_once(self) -> None:
        async def send_twice() -> None:
            request = KontextRequest("edit", input_images=ShortReader(GIF))
            uploads = UploadLimiter(Limits())
            await send(request, uploads)
            await send(KontextRequest.of(request, seed=2), uploads)

        with pytest.raises(InvalidRequest, match="read once, when its request is submitted; make a new request"):
            asyncio.run(send_twice())

    def test_a_reader_that_was_read_before_is_refused(self) -> None:
        reader = ShortReader(GIF)
        send_reader(reader)
        with pytest.raises(InvalidRequest, match="gives nothing more"):
            send_reader(reader)

    def test_a_reader_is_not_read_beyond_the_size_limit(self) -> None:
        reader = ShortReader(GIF + bytes(10_000_000), 1 << 20)
        with pytest.raises(InvalidRequest, match="at most 300000 bytes"):
            send_reader(reader, max_image_bytes=300_000)
        assert reader.data.tell() == 300_001

    @pytest.mark.parametrize("size", [256 * 1024, 256 * 1024 + 1, 1_000_000])
    def test_an_image_of_exactly_the_size_limit_is_sent(self, size: int) -> None:
        data = GIF.ljust(size, b"\0")
        assert base64.b64encode(data) in send_reader(ShortReader(data, 1 << 20), max_image_bytes=size)

    @pytest.mark.parametrize("chunk", [7, "text", ["a"]])
    def test_a_reader_that_returns_no_bytes_is_refused(self, chunk: Any) -> None:
        class Odd:
            async def read(self, size: int = -1) -> Any:
                return chunk

        with pytest.raises(InvalidRequest, match="must be readable"):
            send_reader(Odd())

    def test_a_reader_that_raises_is_refused(self) -> None:
        class Broken:
            async def read(self, size: int = -1) -> bytes:
                raise ConnectionResetError("the client disconnected")

        with pytest.raises(InvalidRequest, match="the client disconnected") as caught:
            send_reader(Broken())
        assert isinstance(caught.value.__cause__, ConnectionResetError)

    def test_a_reader_that_returns_no_image_is_refused(self) -> None:
        for data in (b"a few words that are no image", b"few" * 200_000):
            with pytest.raises(InvalidRequest, match="it must hold an image"):
                send_reader(ShortReader(data))
