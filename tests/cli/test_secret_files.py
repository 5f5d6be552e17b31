"""Secrets in files: the encodings that editors write, and files that have no key or no URL."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from kontext_async import ConfigurationError
from kontext_async.cli.exit_codes import MissingApiKey
from kontext_async.cli.secret_files import read_key_file, read_store_file

if TYPE_CHECKING:
    from pathlib import Path

    from cli_support import RunCommand, Serve


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\n\n"])
def test_byte_order_marks_and_line_ends_are_no_part_of_the_key(encoding: str, end: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(f"some-key{end}".encode(encoding))
    assert read_key_file(path) == "some-key"


def test_utf_16_is_read_in_either_byte_order(tmp_path: Path) -> None:
    path = tmp_path / "key"
    for mark, encoding in ((b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        path.write_bytes(mark + "some-key\r\n".encode(encoding))
        assert read_key_file(path) == "some-key"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b" \r\n", "is empty"),
        (b"\xef\xbb\xbf", "is empty"),
        (b"\xff\xfe", "is empty"),
        (b"\xff", "cannot be read: it is not text in UTF-8"),
        (b"\xff\xfea", "cannot be read: it is not text in UTF-8"),
        (b"some-key\nanother-key\n", "must contain an API key and nothing else"),
        (b"export KEY=some-key", "must contain an API key and nothing else"),
        ("some-kéy".encode(), "must contain an API key and nothing else"),
        (b"s\0o\0m\0e\0", "must contain an API key and nothing else"),
    ],
)
def test_files_without_a_key_are_refused_without_their_content(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_bytes(content)
    with pytest.raises(MissingApiKey, match=words) as refused:
        read_key_file(path)
    assert isinstance(refused.value, ConfigurationError)
    assert "some" not in str(refused.value)


def test_directories_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingApiKey, match="cannot be read: Is a directory"):
        read_key_file(tmp_path)
    with pytest.raises(MissingApiKey, match="cannot be read: No such file or directory"):
        read_key_file(tmp_path / "gone")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.touch(0o000)
    with pytest.raises(MissingApiKey, match="cannot be read: Permission denied"):
        read_key_file(path)


def test_a_command_reads_a_key_file_below_the_home_directory(
    serve: Serve, command: RunCommand, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    serve()
    monkeypatch.delenv("KONTEXT_API_KEY")
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "key").write_bytes("emulator-key\r\n".encode("utf-16"))
    assert command("generate", "a fox", "--key-file=~/key", "--out=~/images").code == 0
    assert command("generate", "a fox", "--key-file", f"file://{tmp_path}/key", "--out", "images").code == 0
    assert len(list((tmp_path / "images").iterdir())) == 2
    (source, _) = (tmp_path / "images").iterdir()
    for image in (f"~/images/{source.name}", source.as_uri()):
        assert command("generate", "at dusk", "--key-file=~/key", "--out", "edits", f"--input-image={image}").code == 0


def test_the_url_of_a_store_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "store"
    path.write_bytes("postgresql://me:secret@db/paid\r\n".encode("utf-16"))
    assert read_store_file(path) == "postgresql://me:secret@db/paid"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\n", "is empty"),
        (b"\xff", "cannot be read: it is not text in UTF-8"),
        (
            b"postgresql://me:secret@db/a\npostgresql://me:secret@db/b",
            "must contain the URL of a store and nothing else",
        ),
    ],
)
def test_a_file_without_the_url_of_a_store_is_refused_and_not_shown(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "store"
    path.write_bytes(content)
    with pytest.raises(ConfigurationError, match=words) as caught:
        read_store_file(path)
    assert "secret" not in str(caught.value)
