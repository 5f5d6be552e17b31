"""Which sources `images.check` refuses without I/O."""

from __future__ import annotations

import base64
import ctypes
import io
import sys
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image
from source_support import JPEG, PNG, catch_check_error, catch_load_error

if TYPE_CHECKING:
    from pathlib import Path


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
        ("data:image/png;base64,AA AA", "base64 is invalid"),
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


@pytest.mark.parametrize("source", ["", "  ", "a\0b"])
def test_check_refuses_a_text_that_is_not_a_path(source: str) -> None:
    assert "it must be a path" in catch_check_error(source).rule


def test_check_explains_that_base64_needs_a_data_uri() -> None:
    error = catch_check_error(base64.b64encode(PNG * 200).decode())
    assert "data: URI" in error.rule
    assert "iVBOR" not in str(error)


@pytest.mark.parametrize("source", [7, None, object(), ["a"], 1.5, {"a": 1}])
def test_check_refuses_any_other_type(source: object) -> None:
    assert "it must be a path, bytes" in catch_check_error(source).rule


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
