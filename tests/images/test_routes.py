"""The same bytes give the same image by every route; requests with them can be compared, hashed and pickled."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import pickle
import zipfile
from contextlib import closing
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_from_bytes

import pytest
from PIL import Image
from source_support import NAME, PathLikeOf

from kontext_async import InvalidRequest, KontextRequest, images
from kontext_async.protocol import encode_create, fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def make_png() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((300, 300), 90).save(buffer, "PNG")
    return buffer.getvalue()


DATA = make_png()
BASE64 = base64.b64encode(DATA).decode()


class OnlyRead:
    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        return self._file.read(size)


class AsyncOnlyRead(OnlyRead):
    async def read(self, size: int = -1) -> bytes:  # type: ignore[override] # on purpose
        return self._file.read(size)


def write(folder: Path) -> Path:
    path = folder / "a fox.bin"
    path.write_bytes(DATA)
    return path


def directory_entry(folder: Path) -> os.DirEntry[str]:
    write(folder)
    with os.scandir(folder) as entries:
        return next(entries)


def zip_entry(folder: Path) -> zipfile.Path:
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        archive.writestr("fox", DATA)
    return zipfile.Path(folder / "a.zip", "fox")


ROUTES: dict[str, Callable[[Path], Any]] = {
    "bytes": lambda _: DATA,
    "bytearray": lambda _: bytearray(DATA),
    "text": lambda folder: str(write(folder)),
    "path": write,
    "file URL": lambda folder: write(folder).as_uri(),
    "tilde": lambda folder: f"~/{write(folder).name}",
    "path of bytes": lambda folder: PathLikeOf(os.fsencode(write(folder))),
    "entry of a directory": directory_entry,
    "entry of an archive": zip_entry,
    "file": lambda _: io.BytesIO(DATA),
    "only read": lambda _: OnlyRead(DATA),
    "async read": lambda _: AsyncOnlyRead(DATA),
    "data URI": lambda _: f"data:;base64,{BASE64}",
    "data URI with line ends": lambda _: f" DATA:image/png;BASE64,{base64.encodebytes(DATA).decode()}",
    "data URI without base64": lambda _: f"data:,{quote_from_bytes(DATA)}",
}
EACH_ROUTE = pytest.mark.parametrize("route", sorted(ROUTES))


def load(source: Any) -> images.LoadedImage:
    normalized = images.normalize(source)
    if isinstance(normalized, images.OneShotReader):
        return asyncio.run(images.load_reader(normalized, NAME))
    return images.load(source, NAME)


@EACH_ROUTE
def test_the_fingerprint_and_the_body_are_the_same_by_every_route(
    route: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    request = KontextRequest("edit", input_images=ROUTES[route](tmp_path))
    source = request.input_images[0]
    plain = images.load(DATA, NAME)
    with closing(load(source.reader if isinstance(source, images.OneShotReader) else source)) as image:
        assert image == plain
        assert fingerprint(request, [image]) == fingerprint(KontextRequest("edit", input_images=DATA), [plain])
        body, expected = encode_create(request, [image]), encode_create(request, [plain])
        assert b"".join(body.pieces()) == b"".join(expected.pieces())


REPEATABLE = {
    "bytes",
    "text",
    "path",
    "file URL",
    "tilde",
    "path of bytes",
    "entry of a directory",
    "data URI",
    "data URI with line ends",
    "data URI without base64",
}


@EACH_ROUTE
def test_an_image_is_repeatable_if_its_source_cannot_change_unnoticed(
    route: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with closing(load(ROUTES[route](tmp_path))) as image:
        assert image.is_repeatable is (route in REPEATABLE)


def test_a_url_is_repeatable_and_a_pipe_is_not() -> None:
    assert images.load("https://host/fox.png", NAME).is_repeatable
    reader, writer = os.pipe()
    try:
        os.write(writer, DATA[:1000])
        os.close(writer)
        with closing(images.load(f"/dev/fd/{reader}", NAME)) as image:
            assert not image.is_repeatable
    finally:
        os.close(reader)


@EACH_ROUTE
def test_fit_accepts_every_route(route: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert asyncio.run(images.fit(ROUTES[route](tmp_path))) == DATA


@pytest.mark.parametrize(
    "make", [lambda: io.BytesIO(b""), lambda: OnlyRead(b""), lambda: AsyncOnlyRead(b""), lambda: b""]
)
def test_fit_refuses_an_empty_source(make: Any) -> None:
    with pytest.raises(InvalidRequest) as caught:
        asyncio.run(images.fit(make()))
    assert "empty" in caught.value.rule or "no more bytes" in caught.value.rule


def test_fit_refuses_a_file_at_its_end_with_the_advice_to_rewind_it() -> None:
    file = io.BytesIO()
    file.write(DATA)
    with pytest.raises(InvalidRequest, match="rewind it"):
        asyncio.run(images.fit(file))


@pytest.mark.parametrize("route", sorted(set(ROUTES) - {"bytearray"}))
def test_a_request_is_equal_to_itself_only_by_its_source_and_can_be_hashed(route: str, tmp_path: Path) -> None:
    source = ROUTES[route](tmp_path)
    request = KontextRequest("edit", input_images=source)
    assert request == KontextRequest("edit", input_images=[source])
    assert hash(request) == hash(KontextRequest("edit", input_images=[source]))
    assert request != KontextRequest("edit", input_images=[source, source])
    assert len(request.input_images) == 1


@pytest.mark.parametrize("route", ["bytes", "bytearray", "text", "path", "file URL", "tilde", "data URI", "file"])
def test_a_request_can_be_pickled(route: str, tmp_path: Path) -> None:
    request = KontextRequest("edit", input_images=ROUTES[route](tmp_path))
    twin = pickle.loads(pickle.dumps(request))  # noqa: S301 # pickled on this line
    assert route == "file" or twin == request
    assert repr(twin) == repr(request)
