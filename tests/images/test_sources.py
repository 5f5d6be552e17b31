"""Which sources `images.check` refuses without I/O."""

from __future__ import annotations

import array
import base64
import ctypes
import io
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image
from source_support import JPEG, PNG, catch_check_error, catch_load_error

from kontext_async import InvalidRequest, KontextRequest

if TYPE_CHECKING:
    from pathlib import Path

NAType = type("NAType", (), {"__module__": "pandas._libs.missing", "__repr__": lambda _: "<NA>"})
NA = NAType()


class Tensor:
    """An array of a library that has no kinds of numbers, such as PyTorch."""

    ndim = 3

    def __dlpack__(self) -> object:
        raise AssertionError("nothing may copy it")

    def __iter__(self) -> Any:
        raise AssertionError("nothing may iterate over its rows")


@pytest.mark.parametrize("source", ["http://", "https:///path", "https://ho st/a", "https://[::1", "https://host/a\nb"])
def test_check_refuses_a_url_without_a_host(source: str) -> None:
    assert "host" in catch_check_error(source).rule


@pytest.mark.parametrize(
    ("source", "rule"),
    [
        ("data:", "comma"),
        ("data:image/png;base64", "comma"),
        ("data:image/png;base64,", "must not be empty"),
        ("data:image/png;base64,A", "base64 is invalid"),
        ("data:image/png;base64,A A A A A", "base64 is invalid"),
        ("data:image/png;base64,QQ==QUJD", "base64 is invalid"),
        ("data:image/png;base64,QQ%3D%3DQUJD", "base64 is invalid"),
        ("data:image/png;base64,%C3%A4", "base64 is invalid"),
        ("data:image/png;base64,AAAA#part", "base64 is invalid"),
        ("  data:image/png;base64", "comma"),
        ("data:image/png;base64,ää==", "base64 is invalid"),
        ("data:image/png;base64,\ud800", "must decode"),
        ("data:text/html;base64," + base64.b64encode(b"<html></html>").decode(), "it must hold an image"),
        ("data:,hello", "it must hold an image"),
    ],
)
def test_check_refuses_a_data_uri_without_an_image(source: str, rule: str) -> None:
    assert rule in catch_check_error(source).rule


@pytest.mark.parametrize("source", [b"", bytearray(), memoryview(b"")])
def test_check_and_load_refuse_an_empty_image(source: Any) -> None:
    assert catch_check_error(source).rule == "an image must not be empty"
    assert catch_load_error(source).rule == "an image must not be empty"


@pytest.mark.parametrize(
    "source",
    [
        b"<html></html>",
        bytearray(b"plain text, no image"),
        memoryview(JPEG)[::2],
        memoryview((ctypes.c_uint8 * 64).from_buffer_copy(JPEG))[::-1],
    ],
)
def test_check_refuses_bytes_that_are_not_an_image(source: Any) -> None:
    assert "JPEG, PNG, WebP or GIF" in catch_check_error(source).rule


@pytest.mark.parametrize(("source", "rule"), [("", "it must be a path"), ("  ", "it must be a path"), ("a\0b", "NUL")])
def test_check_refuses_a_text_that_is_not_a_path(source: str, rule: str) -> None:
    assert rule in catch_check_error(source).rule


def test_check_explains_that_base64_needs_a_data_uri() -> None:
    error = catch_check_error(base64.b64encode(PNG * 200).decode())
    assert "data: URI" in error.rule
    assert "iVBOR" not in str(error)


@pytest.mark.parametrize("source", [7, True, object(), ["a"], 1.5, {"a": 1}, np.int64(7)])
def test_check_refuses_any_other_type(source: object) -> None:
    assert "it must be a path, bytes" in catch_check_error(source).rule


@pytest.mark.parametrize(
    "source", [None, float("nan"), np.float64("nan"), np.float32("nan"), np.datetime64("NaT", "s"), NA], ids=repr
)
def test_check_refuses_a_missing_value_among_images(source: object) -> None:
    assert catch_check_error(source).rule == "a missing value is not an image; leave it out"
    with pytest.raises(InvalidRequest) as caught:
        KontextRequest("edit", input_images=[PNG, source])  # type: ignore[list-item] # that is the point
    assert caught.value.field == "input_images[1]"


@pytest.mark.parametrize(
    "source",
    [
        np.zeros((4, 4, 3), np.uint8),
        np.zeros((4, 4, 3)),
        np.zeros((900, 900), np.bool_),
        np.frombuffer(PNG, np.uint8),
        np.array([["a.png"]], object),
        array.array("B", PNG),
        (ctypes.c_uint8 * 64).from_buffer_copy(JPEG),
        Tensor(),
    ],
    ids=lambda source: f"{type(source).__name__}{getattr(source, 'shape', '')}",
)
def test_an_array_is_refused_as_one_image_with_the_way_to_pass_it(source: Any) -> None:
    for given in (source, [source]):
        with pytest.raises(InvalidRequest, match=r"PIL\.Image\.fromarray") as caught:
            KontextRequest("edit", input_images=given)
        assert caught.value.field == "input_images[0]"
        assert caught.value.value == f"<{type(source).__name__}>"


def test_an_array_of_paths_is_a_collection_of_images() -> None:
    for paths in (np.array(["a.png", "b.png"]), np.array(["a.png", "b.png"], object)):
        assert KontextRequest("edit", input_images=paths).input_images == ("a.png", "b.png")


def test_a_mapping_is_no_collection_of_images() -> None:
    images: Any = {"url": "https://host/a.png"}
    with pytest.raises(InvalidRequest, match="it must be a path"):
        KontextRequest("edit", input_images=images)


def test_check_refuses_a_released_memoryview() -> None:
    released = memoryview(JPEG)
    released.release()
    assert "must be readable: operation forbidden on released" in catch_check_error(released).rule


def test_check_refuses_a_file_in_text_mode(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("text")
    with path.open() as file:
        assert "a binary file" in catch_check_error(file).rule
    assert "a binary file" in catch_check_error(io.StringIO("text")).rule


def test_check_refuses_a_pillow_image_if_pillow_is_not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    image = Image.new("RGB", (2, 2))
    monkeypatch.delitem(sys.modules, "PIL.Image")
    assert "it must be a path" in catch_check_error(image).rule
