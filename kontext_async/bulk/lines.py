"""Decodes prompt files into lines, one at a time: a file may be of any length.

A file is UTF-8, with or without a byte order mark, or UTF-16 or UTF-32 with one, as Excel and Windows' Notepad write
it. Any line ends are read. Invalid lines are yielded, not raised, so that reading continues with the next line.
"""

from __future__ import annotations

import codecs
import os
import re
import unicodedata
from collections.abc import Iterator
from typing import TYPE_CHECKING, TextIO, TypeAlias

from attrs import field, frozen

from kontext_async.images import MAX_IMAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

__all__ = ["MAX_LINE_LENGTH", "InvalidRow", "Line", "LineReader", "is_blank"]

MAX_LINE_LENGTH = 2 * MAX_IMAGE_BYTES
"""Characters of one line, at most: enough for an image of the largest size as a data URI."""

BYTE_ORDER_MARKS = {
    codecs.BOM_UTF32_LE: "utf-32",  # before UTF-16, whose mark is its beginning
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}

UNDECODABLE = re.compile("[\udc80-\udcff]")
"""The characters that stand for bytes that cannot be decoded: see `surrogateescape`."""

MARK_UNDECODABLE = "kontext_async.mark_undecodable"
"""The name of our error handler among those of `codecs`."""

INVISIBLE = frozenset({"Cc", "Cf", "Zs", "Zl", "Zp"})
"""Unicode categories of controls, format characters and blanks."""

END_OF_FILE = "\x1a"
"""Ctrl-Z, which editors of DOS wrote at the end of a file."""


@frozen
class Line:
    """A line of a prompt file.

    Attributes:
        number: The line number, from 1.
        text: The line with its line end.
    """

    number: int
    text: str = field(repr=False)


@frozen
class InvalidRow:
    """A line that is not a valid row.

    Attributes:
        line: The line number, from 1.
        name: The name of the invalid part.
        value: The invalid value.
        rule: The values that are allowed.
    """

    line: int
    name: str
    value: object
    rule: str


FoundLine: TypeAlias = Line | InvalidRow


class LineReader(Iterator[FoundLine]):
    """An iterator over the lines of a file. Lines that are invalid in every format are `InvalidRow`.

    It opens the file when the first line is read: ``next`` raises `OSError` if the file cannot be read.

    Attributes:
        size: The size of the file in bytes; 0 before the first line.
    """

    def __init__(self, path: Path) -> None:
        self.size = 0
        self._path = path
        self._file: TextIO | None = None
        self._lines = self._read()

    @property
    def position(self) -> int:
        """The number of bytes that were read, a few thousand ahead of the latest line; 0 while no file is open."""
        return self._file.buffer.tell() if self._file else 0

    def __next__(self) -> FoundLine:
        return next(self._lines)

    def close(self) -> None:
        """Close the file before its end is reached."""
        self._lines.close()

    def _read(self) -> Generator[FoundLine, None, None]:
        encoding = _encoding_of(self._path)
        errors = "surrogateescape" if encoding == "utf-8-sig" else MARK_UNDECODABLE
        with self._path.open(encoding=encoding, errors=errors, newline="") as file:
            self.size = os.fstat(file.fileno()).st_size
            self._file = file
            try:
                yield from _lines(file)
            finally:
                self._file = None


def is_blank(text: str) -> bool:
    """Return True if a text has no visible character: only blanks, controls (a lone Ctrl-Z) or format characters."""
    return not text[:1].isalnum() and all(unicodedata.category(character) in INVISIBLE for character in text)


def _encoding_of(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(4)
    return next((name for mark, name in BYTE_ORDER_MARKS.items() if head.startswith(mark)), "utf-8-sig")


def _lines(file: TextIO) -> Iterator[FoundLine]:
    number = 0
    while text := file.readline(MAX_LINE_LENGTH):
        number += 1
        if len(text) == MAX_LINE_LENGTH and not text.endswith(("\n", "\r")):
            _skip_rest_of_line(file)
            yield InvalidRow(number, "line", text[:40], f"a line may have at most {MAX_LINE_LENGTH} characters")
        elif UNDECODABLE.search(text):
            shown = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            rule = "a prompt file must be UTF-8, or UTF-16 with a byte order mark: save it as UTF-8"
            yield InvalidRow(number, "line", shown, rule)
        elif "\0" in text:
            rule = "a line must not contain NUL characters; if the file is UTF-16, save it as UTF-8"
            yield InvalidRow(number, "line", text, rule)
        else:
            yield Line(number, text.removesuffix(END_OF_FILE))


def _skip_rest_of_line(file: TextIO) -> None:
    while (rest := file.readline(MAX_LINE_LENGTH)) and not rest.endswith(("\n", "\r")):
        pass


def _mark_undecodable(error: UnicodeError) -> tuple[str, int]:
    """Replace bytes that cannot be decoded, as `surrogateescape` does, which does not know UTF-16."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return "\udc80", error.end


codecs.register_error(MARK_UNDECODABLE, _mark_undecodable)
