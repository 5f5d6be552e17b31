"""URLs as input images: the gateway downloads http(s) URLs, file URLs name a file, any other is refused."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, strategies as st
from source_support import GIF, NAME, catch_check_error, catch_load_error, load_and_close

from kontext_async import InvalidRequest, KontextRequest
from kontext_async.images import check, is_path, resolve_path
from kontext_async.images.urls import MAX_URL_LENGTH

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "url",
    [
        "https://host/fox.jpg?sig=a%2Fb",
        "HTTP://host",
        "http://host:8080/fox.jpg#part",
        "http://host.:80/fox.jpg",
        "http://[::1]:8080/fox.jpg",
        "http://127.0.0.1/fox.jpg",
        "https://bücher.example/füchse/🦊.jpg",
        "https://例え.テスト/fox.jpg",
        "https://my_bucket.host/fox.jpg",
        "https://host/user@example/fox.jpg",
        f"https://{'a' * 63}.example/fox.jpg",
    ],
)
def test_a_url_is_passed_on_unchanged(url: str) -> None:
    check(url, NAME)
    assert load_and_close(url).url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://a..b/x.png",
        "http://.a/x.png",
        "http://./x.png",
        "http://a../x.png",
        f"http://{'a' * 64}/x.png",
        f"http://{'ü' * 60}/x.png",
        f"http://{'a.' * 127}a/x.png",
        f"http://{'ü' * 100_00}/x.png",
        "http://a<b/x.png",
        "http://a%20b/x.png",
        "http://[zz]/x.png",
        "http://[::1/x.png",
        "http://host:99999/x.png",
        "http://host:port/x.png",
        "http://host\u2100/x.png",
        "http://\u200d/x.png",
        "http://:80/x.png",
        "http:host/x.png",
        "https:/host/x.png",
    ],
)
def test_a_url_without_a_valid_host_is_refused(url: str) -> None:
    error = catch_check_error(url)
    assert "host" in error.rule or "must begin with" in error.rule
    assert len(str(error)) < 500


@pytest.mark.parametrize("position", ["start", "inside", "end"])
@pytest.mark.parametrize("character", [" ", "\t", "\n", "\r\n", "\0", "\x1b", "\x7f", "\u00a0", "\u2028", "\ud800"])
def test_a_url_with_a_blank_or_a_control_character_is_refused(character: str, position: str) -> None:
    url = "https://host/a.png"
    given = {"start": character + url, "inside": url.replace("a.", f"a{character}."), "end": url + character}[position]
    if position == "start" and character in "\0\x1b\x7f\ud800":
        return  # no URL: the text does not begin with a scheme
    error = catch_check_error(given)
    assert str(error).isprintable()
    str(error).encode()


@pytest.mark.parametrize("url", ["https://user:hush@host/a.png", "https://hush@host/a.png", "https://@host/a.png"])
def test_a_url_with_credentials_is_refused_and_they_are_not_shown(url: str) -> None:
    error = catch_check_error(url)
    assert "the gateway would receive them" in error.rule
    assert "hush" not in str(error)
    assert error.value == "'https://host/a.png'"


def test_a_host_that_another_parser_would_read_differently_is_refused() -> None:
    assert "backslashes" in catch_check_error("https://good.example\\@evil.example/a.png").rule


@pytest.mark.parametrize(
    "url",
    [
        "http://a..b/x.png?sig=hush",
        "https://host/a b.png?sig=hush and=hush",
        "  https://host/a.png?sig=hush",
        "ftp://user:hush@host/x.png?sig=hush",
        "s3://bucket/x.png?sig=hush",
        "https:host/x.png?sig=hush",
        "file://host/x.png?sig=hush",
    ],
)
def test_the_error_of_a_refused_url_hides_its_query(url: str) -> None:
    assert "hush" not in repr(catch_check_error(url)) + str(catch_check_error(url))


def test_a_url_of_any_length_has_a_bounded_error() -> None:
    check(("https://host/" + "a" * MAX_URL_LENGTH)[:MAX_URL_LENGTH], NAME)
    error = catch_check_error("https://host/" + "a" * MAX_URL_LENGTH)
    assert f"at most {MAX_URL_LENGTH} characters" in error.rule
    assert len(str(error)) < 500


@pytest.mark.parametrize("url", ["ftp://host/x.png", "s3://bucket/x.png", "gs://bucket/x", "blob:https://host/x"])
def test_a_url_of_another_scheme_is_refused(url: str) -> None:
    error = catch_load_error(url) if url.startswith("blob") else catch_check_error(url)
    assert "must begin with http://" in error.rule or "must be readable" in error.rule


@given(st.text(max_size=30))
def test_any_host_is_accepted_or_raises_invalid_request(host: str) -> None:
    error: InvalidRequest | None = None
    try:
        KontextRequest("edit", input_images=[f"https://{host}/a.png?sig=hush"])
    except InvalidRequest as caught:
        error = caught
    if error:
        assert error.field == "input_images[0]"
        assert "hush" not in str(error)
        str(error).encode()


def make_file(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(GIF)
    return path


@pytest.mark.parametrize("prefix", ["file://", "FILE://", "file://localhost", "file://LOCALHOST", "file:"])
@pytest.mark.parametrize("name", ["fox.png", "a fox.png", "füchse 🦊.png", "50%.png", "a?b#c.png", "~", "é%41.png"])
def test_a_file_url_is_read_as_a_file(tmp_path: Path, prefix: str, name: str) -> None:
    url = make_file(tmp_path, name).as_uri().replace("file://", prefix, 1)
    check(url, NAME)
    assert load_and_close(url).read() == GIF


def test_a_file_url_may_have_unencoded_letters_and_blanks(tmp_path: Path) -> None:
    path = make_file(tmp_path, "füchse im schnee.png")
    assert load_and_close(f"file://{path}").read() == GIF


def test_a_file_url_may_name_a_file_whose_name_is_not_unicode(tmp_path: Path) -> None:
    (tmp_path / os.fsdecode(b"\xff.png")).write_bytes(GIF)
    assert load_and_close(f"file://{tmp_path}/%FF.png").read() == GIF


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("file://", "must name a file"),
        ("file:///", "must name a file"),
        ("file://localhost", "must name a file"),
        ("file://server/share/fox.png", "on this computer"),
        ("file://127.0.0.1/fox.png", "on this computer"),
        ("file:///fox.png?size=2", "percent-encoded"),
        ("file:///fox.png#part", "percent-encoded"),
        ("file:///fox.png\n", "percent-encoded"),
        ("file:///fox\x1b.png", "percent-encoded"),
        ("file:///fox%00.png", "must name a file"),
        ("file:///fox\ud800.png", "percent-encoded"),
        ("file:///" + "x" * 5000, "too long for a path"),
    ],
)
def test_a_file_url_that_names_no_file_of_this_computer_is_refused(url: str, rule: str) -> None:
    error = catch_check_error(url)
    assert rule in error.rule
    assert str(error).isprintable()


def test_the_error_of_a_missing_file_names_its_url(tmp_path: Path) -> None:
    error = catch_load_error(f"file://{tmp_path}/gone.png")
    assert "No such file" in error.rule
    assert "gone.png" in error.value


@pytest.mark.parametrize("kind", [str, "path"])
def test_a_leading_tilde_is_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Any) -> None:
    from pathlib import Path as AnyPath

    monkeypatch.setenv("HOME", str(tmp_path))
    make_file(tmp_path, "fox.png")
    source = "~/fox.png" if kind is str else AnyPath("~/fox.png")
    check(source, NAME)
    assert load_and_close(source).read() == GIF


def test_a_tilde_before_no_user_is_part_of_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_file(tmp_path, "~backup of a fox.png")
    assert load_and_close("~backup of a fox.png").read() == GIF


def test_a_url_as_a_path_object_is_refused_with_the_reason() -> None:
    from pathlib import Path as AnyPath

    assert "a URL must be text" in catch_load_error(AnyPath("https://host/fox.png")).rule


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("fox.png", True),
        ("~/fox.png", True),
        ("file:///fox.png", True),
        ("C:/fox.png", True),
        ("file:fox.png", True),
        ("file://server/fox.png", False),
        ("https://host/fox.png", False),
        (" https://host/fox.png", False),
        ("ftp://host/fox.png", False),
        ("data:,", False),
        ("", False),
        ("a\0b", False),
        ("x" * 5000, False),
        (b"fox.png", False),
        (None, False),
    ],
)
def test_is_path_is_true_for_what_names_a_file(source: object, expected: bool) -> None:  # noqa: FBT001 # a parameter
    assert is_path(source) is expected


@given(st.sampled_from(["", "~", "file://", "file:/", "~root"]), st.text(st.characters(codec=None), max_size=20))
def test_resolve_path_returns_a_path_for_all_that_is_path_accepts(prefix: str, text: str) -> None:
    if is_path(prefix + text):
        assert str(resolve_path(prefix + text))
