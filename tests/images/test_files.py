"""Files as input images: file objects of all kinds, entries of archives, and paths that are no regular file."""

from __future__ import annotations

import asyncio
import codecs
import gzip
import io
import mmap
import os
import socket
import sys
import tarfile
import tempfile
import threading
import urllib.request
import zipfile
from contextlib import closing
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from source_support import GIF, JPEG, NAME, PNG, WEBP, PathLikeOf, catch_check_error, catch_load_error, load_and_close

from kontext_async import InvalidRequest, images
from kontext_async.images import MAX_IMAGE_BYTES, check, files
from kontext_async.images.contents import FileContent
from kontext_async.images.spooling import SPOOL_AT

if TYPE_CHECKING:
    from collections.abc import Iterator


def check_and_load(source: Any) -> None:
    check(source, NAME)
    load_and_close(source)


LARGE = GIF + bytes(SPOOL_AT + 1)


class OnlyRead:
    """An object with a `read` and nothing else."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def read(self, size: int = -1) -> bytes:
        """Read up to `size` bytes."""
        return self._file.read(size)


class OnlyReadAll:
    """An object whose `read` takes no size."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def read(self) -> bytes:
        """Return all bytes, each time."""
        return self._data


class UnseekableFile(io.BytesIO):
    """A file that cannot seek, and says so."""

    def seekable(self) -> bool:
        return False

    def tell(self) -> int:
        raise io.UnsupportedOperation("tell")


class TestFileObject:
    def test_at_its_end_is_refused_with_the_advice_to_rewind_it(self, tmp_path: Path) -> None:
        written = io.BytesIO()
        written.write(PNG)
        path = tmp_path / "fox.png"
        path.write_bytes(PNG)
        with path.open("rb") as read, path.open("rb", buffering=0) as raw, path.open("r+b") as both:
            for file in (written, read, raw, both):
                file.seek(0, os.SEEK_END)
                check(file, NAME)
                error = catch_load_error(file)
                assert f"it is at its end (position {len(PNG)}); rewind it: file.seek(0)" in error.rule
                file.seek(0)
                assert load_and_close(file).read() == PNG

    def test_beyond_its_end_is_refused_with_the_advice_to_rewind_it(self) -> None:
        file = io.BytesIO(PNG)
        file.seek(1000)
        assert "rewind it" in catch_load_error(file).rule

    @pytest.mark.parametrize("make", [io.BytesIO, OnlyRead, OnlyReadAll, UnseekableFile])
    def test_without_any_bytes_is_refused(self, make: Any) -> None:
        error = catch_load_error(make(b""))
        assert "must not be empty" in error.rule or "has no more bytes" in error.rule

    @pytest.mark.parametrize("data", [GIF, LARGE], ids=len)
    @pytest.mark.parametrize("make", [OnlyRead, OnlyReadAll, UnseekableFile])
    def test_with_only_a_read_method_is_read_once(self, make: Any, data: bytes) -> None:
        source = make(data)
        check(source, NAME)
        with closing(images.load(source, NAME)) as image:
            assert image.read() == image.read() == data
        if make is not OnlyReadAll:
            assert "is read only once: pass its bytes to reuse it" in catch_load_error(source).rule

    def test_with_only_a_read_method_is_not_read_beyond_the_limit(self) -> None:
        source = OnlyRead(GIF + bytes(10_000))
        assert "at most 1000 bytes" in catch_load_error(source, 1000).rule
        assert source._file.tell() == 1001

    def test_whose_read_takes_no_size_must_not_exceed_the_limit(self) -> None:
        assert "at most 1000 bytes" in catch_load_error(OnlyReadAll(LARGE), 1000).rule

    @pytest.mark.parametrize("data", [JPEG, LARGE], ids=len)
    def test_of_an_archive_is_read(self, tmp_path: Path, data: bytes) -> None:
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("fox.jpg", data)
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            entry = tarfile.TarInfo("fox.jpg")
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        (tmp_path / "a.gz").write_bytes(gzip.compress(data))
        with (
            zipfile.ZipFile(tmp_path / "a.zip") as zipped,
            zipped.open("fox.jpg") as unzipped,
            tarfile.open(tmp_path / "a.tar") as tarred,
            gzip.open(tmp_path / "a.gz") as unpacked,
        ):
            for source in (unzipped, tarred.extractfile("fox.jpg"), unpacked):
                check(source, NAME)
                assert load_and_close(source).read() == data
                assert load_and_close(source).read() == data

    def test_that_is_memory_mapped_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(LARGE)
        with (tmp_path / "a").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as source:
            check(source, NAME)
            assert load_and_close(source).read() == LARGE
            assert source.tell() == 0

    def test_of_a_url_or_a_socket_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "a").write_bytes(LARGE)
        with urllib.request.urlopen((tmp_path / "a").as_uri()) as response:  # noqa: S310 # a file of this test
            assert load_and_close(response).read() == LARGE
        ours, theirs = socket.socketpair()
        with ours, ours.makefile("rb") as source:
            theirs.sendall(GIF)
            theirs.close()
            check(source, NAME)
            assert load_and_close(source).read() == GIF

    def test_in_text_mode_is_refused_with_the_advice_to_open_it_in_binary_mode(self, tmp_path: Path) -> None:
        path = tmp_path / "a"
        path.write_bytes(b"text")
        with path.open() as file:
            assert "open(path, 'rb')" in catch_check_error(file).rule
        assert "open(path, 'rb')" in catch_check_error(io.StringIO("text")).rule
        with tempfile.NamedTemporaryFile("w+") as temporary, tempfile.SpooledTemporaryFile(mode="w+") as spooled:
            for source in (temporary, spooled):
                source.write("text")
                source.seek(0)
                assert "open(path, 'rb')" in catch_load_error(source).rule
        assert "open(path, 'rb')" in catch_load_error(codecs.getreader("ascii")(io.BytesIO(b"text"))).rule
        assert "`buffer`" in catch_check_error(io.TextIOWrapper(io.BytesIO(b"text"))).rule

    def test_that_is_open_for_writing_only_is_refused(self, tmp_path: Path) -> None:
        with (tmp_path / "a").open("wb") as file:
            assert "must be readable" in catch_load_error(file).rule

    def test_in_non_blocking_mode_without_bytes_is_refused(self) -> None:
        reader, writer = os.pipe()
        os.set_blocking(reader, False)
        with open(reader, "rb", buffering=0) as source, open(writer, "wb"):  # noqa: PTH123 # descriptors
            assert "non-blocking mode" in catch_load_error(source).rule

    def test_that_raises_has_no_secret_in_its_error(self) -> None:
        class Response:
            def read(self, size: int = -1) -> bytes:
                raise RuntimeError("GET https://user:hush@host/a.png?sig=hush failed\x1b[2J\nX-Log: forged")

            def __repr__(self) -> str:
                return "<Response https://host/a.png?sig=hush>"

        error = catch_load_error(Response())
        assert "https://host/a.png failed" in error.rule
        assert "hush" not in str(error)
        assert str(error).isprintable()
        assert error.value == "<Response>"

    def test_with_an_async_read_without_a_size_is_read_once(self) -> None:
        class Body:
            async def read(self) -> bytes:
                return GIF

        image = asyncio.run(images.load_reader(images.normalize(Body()), NAME))
        assert image.read() == GIF


class TestOpenable:
    @pytest.fixture
    def archive(self, tmp_path: Path) -> Iterator[zipfile.Path]:
        with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as made:
            made.writestr("folder/fox.gif", GIF)
            made.writestr("bomb.gif", GIF + bytes(5_000_000))
        with zipfile.ZipFile(tmp_path / "a.zip") as opened:
            yield zipfile.Path(opened)

    def test_an_entry_of_an_archive_is_read_again_and_again(self, archive: zipfile.Path) -> None:
        source = archive / "folder" / "fox.gif"
        check(source, NAME)
        assert load_and_close(source).read() == load_and_close(source).read() == GIF

    def test_an_entry_is_not_unpacked_beyond_the_limit(self, archive: zipfile.Path) -> None:
        assert "at most 1000 bytes" in catch_load_error(archive / "bomb.gif", 1000).rule

    @pytest.mark.parametrize("name", ["folder/", "gone.gif"])
    def test_an_entry_that_is_no_file_is_refused(self, archive: zipfile.Path, name: str) -> None:
        assert "must be readable" in catch_load_error(archive / name).rule

    def test_a_package_resource_is_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        with zipfile.ZipFile(tmp_path / "packed_foxes.zip", "w") as packed:
            packed.writestr("packed_foxes/__init__.py", "")
            packed.writestr("packed_foxes/fox.gif", GIF)
        monkeypatch.syspath_prepend(tmp_path / "packed_foxes.zip")
        try:
            source: Any = resources.files("packed_foxes") / "fox.gif"
            check(source, NAME)
            assert load_and_close(source).read() == GIF
        finally:
            sys.modules.pop("packed_foxes", None)


class TestPath:
    @pytest.mark.parametrize("wrap", [os.fsencode, lambda path: path])
    def test_a_path_like_object_may_return_text_or_bytes(self, tmp_path: Path, wrap: Any) -> None:
        path = tmp_path / os.fsdecode(b"f\xffx.gif")
        path.write_bytes(GIF)
        source = PathLikeOf(wrap(str(path)))
        check(source, NAME)
        assert load_and_close(source).read() == GIF

    def test_an_entry_of_a_directory_is_read(self, tmp_path: Path) -> None:
        (tmp_path / "fox.gif").write_bytes(GIF)
        for folder in (tmp_path, os.fsencode(tmp_path)):
            with os.scandir(folder) as entries:
                for entry in entries:
                    assert load_and_close(entry).read() == GIF

    def test_a_symlink_is_followed(self, tmp_path: Path) -> None:
        (tmp_path / "fox.gif").write_bytes(GIF)
        (tmp_path / "link").symlink_to("fox.gif")
        assert load_and_close(tmp_path / "link").read() == GIF

    def test_a_relative_path_stays_valid_when_the_working_directory_changes(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "fox.gif").write_bytes(GIF)
        monkeypatch.chdir(tmp_path)
        with closing(images.load("fox.gif", NAME)) as image:
            monkeypatch.chdir("/")
            assert image.read() == GIF

    @pytest.mark.parametrize("wrap", [str, Path])
    def test_a_loop_of_symlinks_is_refused(self, tmp_path: Path, wrap: Any) -> None:
        (tmp_path / "loop").symlink_to("loop")
        assert "must be readable" in catch_load_error(wrap(tmp_path / "loop")).rule

    @pytest.mark.parametrize("wrap", [str, Path, PathLikeOf, lambda path: PathLikeOf(os.fsencode(path))])
    @pytest.mark.parametrize("name", ["a\0b", "x" * 5000, "x" * 300, "fox.gif/below", ""])
    def test_an_impossible_path_is_refused(self, tmp_path: Path, wrap: Any, name: str) -> None:
        (tmp_path / "fox.gif").write_bytes(GIF)
        source = wrap(f"{tmp_path}/{name}")
        with pytest.raises(InvalidRequest) as caught:
            check_and_load(source)
        assert caught.value.field == NAME
        assert len(str(caught.value)) < 500

    @pytest.mark.parametrize("wrap", [str, Path, PathLikeOf])
    def test_a_path_with_a_lone_surrogate_is_refused_in_printable_text(self, wrap: Any) -> None:
        source = wrap("fox\ud800.gif")
        error = catch_load_error(source)
        assert str(error).isprintable()
        str(error).encode()

    def test_a_directory_is_refused(self, tmp_path: Path) -> None:
        assert "it is a directory" in catch_load_error(tmp_path).rule

    @pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/dev/random", "/dev/tty"])
    def test_a_device_is_not_opened(self, path: str) -> None:
        assert "it is a device" in catch_load_error(path).rule

    def test_a_socket_is_not_opened(self, tmp_path: Path) -> None:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(tmp_path / "socket"))
            assert "it is a socket" in catch_load_error(tmp_path / "socket").rule

    @pytest.mark.parametrize("path", ["/proc/self/status", "/proc/self/mem", "/proc/kmsg", "/proc/self/maps"])
    def test_a_file_of_the_kernel_is_refused_at_once(self, path: str) -> None:
        assert catch_load_error(path).rule

    def test_a_file_without_permission_to_read_it_is_refused(self, tmp_path: Path) -> None:
        path = tmp_path / "fox.gif"
        path.write_bytes(GIF)
        path.chmod(0)
        user = os.geteuid()
        if user == 0:  # root reads every file
            os.seteuid(65534)
        try:
            assert "Permission denied" in catch_load_error(path).rule
        finally:
            os.seteuid(user)

    def test_an_empty_file_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "fox.gif").touch()
        assert catch_load_error(tmp_path / "fox.gif").rule == "an image must not be empty"

    @pytest.mark.parametrize("data", [PNG, JPEG, GIF, WEBP], ids=["png", "jpeg", "gif", "webp"])
    def test_an_image_with_another_extension_and_bytes_after_its_end_is_read(self, tmp_path: Path, data: bytes) -> None:
        path = tmp_path / "fox.txt"
        path.write_bytes(data + b"\0" * 20 + b"appended by a program")
        assert load_and_close(path).read() == path.read_bytes()

    def test_base64_that_is_short_enough_for_a_path_is_refused_with_the_reason(self) -> None:
        assert "base64 needs a data: URI" in catch_load_error("iVBORw0KGgoAAAANSUhEUgAAAAEAAAAB").rule


class TestPipe:
    @pytest.fixture
    def pipe(self, tmp_path: Path) -> Path:
        path = tmp_path / "pipe"
        os.mkfifo(path)
        return path

    def test_without_a_writer_is_given_up(self, pipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(files, "WRITER_TIMEOUT", 0.05)
        assert "no process writes to this pipe" in catch_load_error(pipe).rule

    def test_with_a_silent_writer_is_given_up(self, pipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(files, "WRITER_TIMEOUT", 0.05)
        monkeypatch.setattr(files, "SILENCE_TIMEOUT", 0.05)
        writer = os.open(pipe, os.O_RDWR)
        try:
            assert "wrote nothing for" in catch_load_error(pipe).rule
        finally:
            os.close(writer)

    def test_with_a_writer_that_comes_late_is_read(self, pipe: Path) -> None:
        def write() -> None:
            with pipe.open("wb", buffering=0) as file:  # waits for a reader
                file.write(GIF[:10])
                file.write(GIF[10:])

        writer = threading.Thread(target=write)
        writer.start()
        assert load_and_close(pipe).read() == GIF
        writer.join()

    def test_whose_writer_wrote_nothing_is_refused(self, pipe: Path) -> None:
        writer = threading.Thread(target=lambda: pipe.write_bytes(b""))
        writer.start()
        assert catch_load_error(pipe).rule == "an image must not be empty"
        writer.join()

    def test_of_a_descriptor_is_read(self) -> None:
        reader, writer = os.pipe()
        try:
            os.write(writer, GIF)
            os.close(writer)
            assert load_and_close(f"/dev/fd/{reader}").read() == GIF
        finally:
            os.close(reader)


def test_a_file_system_that_reads_less_than_requested_is_read_to_the_end() -> None:
    class ShortFile(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 1, 7))

    content = FileContent(ShortFile(LARGE), len(LARGE))
    assert b"".join(content.chunks(100_000)) == LARGE


def test_the_largest_image_is_accepted_by_every_route(tmp_path: Path) -> None:
    data = GIF.ljust(MAX_IMAGE_BYTES, b"\0")
    for source in (OnlyRead(data), OnlyReadAll(data), UnseekableFile(data)):
        assert load_and_close(source).read() == data
    for source in (OnlyRead(data + b"x"), OnlyReadAll(data + b"x"), UnseekableFile(data + b"x")):
        assert "at most" in catch_load_error(source).rule
