"""Splits prompt files into rows of cells. `kontext_async.bulk.readers` builds requests from them.

Formats, by extension: ``.txt`` (a prompt a line), ``.jsonl`` (a string or an object a line, https://jsonlines.org),
``.csv`` (RFC 4180, strictly), ``.tsv`` (https://www.iana.org/assignments/media-types/text/tab-separated-values: a tab
ends a cell, and quotation marks are ordinary characters). All are UTF-8, with or without a byte order mark, with
any line ends, and are read line by line: a file may be of any length.

Invalid lines are yielded, not raised, so that reading continues with the next line.
"""

from __future__ import annotations

import csv
import json
import re
from typing import TYPE_CHECKING, Any, TextIO, TypeAlias

from attrs import field, frozen

from kontext_async.images import MAX_IMAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["FORMATS", "MAX_LINE_LENGTH", "InvalidRow", "PromptRow", "read_rows"]

MAX_LINE_LENGTH = 2 * MAX_IMAGE_BYTES
"""Characters of one line, at most: enough for an image of the largest size as a data URI."""

UNDECODABLE = re.compile("[\udc80-\udcff]")
"""The characters that `surrogateescape` produces for bytes that are not UTF-8."""


@frozen
class PromptRow:
    """The cells of one request.

    Attributes:
        line: The line number, from 1; if the row spans several lines, the number of the first.
        cells: The values by column name. They are text unless they come from JSON.
    """

    line: int
    cells: Mapping[str, Any]


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


@frozen
class _Line:
    number: int
    text: str = field(repr=False)


Rows: TypeAlias = "Generator[PromptRow | InvalidRow, None, None]"


def read_rows(path: Path) -> Rows:
    """Yield the rows and the invalid rows of a file. Blank lines are skipped.

    Raises:
        OSError: The file cannot be read.
    """
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        yield from FORMATS[path.suffix.lower()](_lines(file))


def _lines(file: TextIO) -> Iterator[_Line | InvalidRow]:
    """Yield the lines with their line ends, and lines that are invalid in every format as `InvalidRow`."""
    number = 0
    while text := file.readline(MAX_LINE_LENGTH):
        number += 1
        if len(text) == MAX_LINE_LENGTH and not text.endswith(("\n", "\r")):
            _skip_rest_of_line(file)
            yield InvalidRow(number, "line", text[:40], f"a line may have at most {MAX_LINE_LENGTH} characters")
        elif UNDECODABLE.search(text):
            shown = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            yield InvalidRow(number, "line", shown, "a prompt file must be UTF-8")
        elif "\0" in text:
            yield InvalidRow(number, "line", text, "a line must not contain NUL characters")
        else:
            yield _Line(number, text)


def _skip_rest_of_line(file: TextIO) -> None:
    while (rest := file.readline(MAX_LINE_LENGTH)) and not rest.endswith(("\n", "\r")):
        pass


def _prompts(lines: Iterable[_Line | InvalidRow]) -> Rows:
    for line in lines:
        if isinstance(line, InvalidRow):
            yield line
        elif line.text.strip():
            yield PromptRow(line.number, {"prompt": line.text.rstrip("\r\n")})


def _objects(lines: Iterable[_Line | InvalidRow]) -> Rows:
    for line in lines:
        if isinstance(line, InvalidRow):
            yield line
        elif line.text.strip():
            yield _object(line)


def _object(line: _Line) -> PromptRow | InvalidRow:
    try:
        value = json.loads(line.text)
    except json.JSONDecodeError as error:
        rule = f"it must be JSON: {error.msg} at column {error.colno}"
        return InvalidRow(line.number, "line", line.text.strip(), rule)
    except (ValueError, RecursionError):
        rule = "it must be JSON without extremely long numbers or deep nesting"
        return InvalidRow(line.number, "line", line.text.strip(), rule)
    if isinstance(value, str):
        return PromptRow(line.number, {"prompt": value})
    if isinstance(value, dict):
        return PromptRow(line.number, value)
    return InvalidRow(line.number, "line", line.text.strip(), "it must be a string (the prompt) or an object of fields")


def _tab_separated(lines: Iterable[_Line | InvalidRow]) -> Rows:
    def records() -> Iterator[tuple[int, list[str]] | InvalidRow]:
        for line in lines:
            yield line if isinstance(line, InvalidRow) else (line.number, line.text.rstrip("\r\n").split("\t"))

    return _table(records())


def _comma_separated(lines: Iterable[_Line | InvalidRow]) -> Rows:
    return _table(_csv_records(lines))


def _csv_records(lines: Iterable[_Line | InvalidRow]) -> Iterator[tuple[int, list[str]] | InvalidRow]:
    """Yield the records, which may span lines. After an invalid line, the start of the next record is unknown."""
    last, latest = 0, ""
    invalid: InvalidRow | None = None

    def texts() -> Iterator[str]:
        nonlocal last, latest, invalid
        for line in lines:
            if isinstance(line, InvalidRow):
                invalid = line
                return
            last, latest = line.number, line.text
            yield line.text

    reader = csv.reader(texts(), strict=True)
    while True:
        first = last + 1
        try:
            record = next(reader, None)
        except csv.Error as error:
            yield invalid or InvalidRow(first, "line", latest, f"it must be CSV, quoted as in RFC 4180: {error}")
            return
        if invalid:
            yield invalid
            return
        if record is None:
            return
        yield first, record


def _table(records: Iterator[tuple[int, list[str]] | InvalidRow]) -> Rows:
    header: list[str] | None = None
    for record in records:
        if isinstance(record, InvalidRow):
            yield record
            continue
        line, cells = record
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = [cell.strip() for cell in cells]
            if invalid := _check_header(line, header):
                yield invalid
                return
        elif any(cell.strip() for cell in cells[len(header) :]):
            yield InvalidRow(line, "number of cells", len(cells), f"the header has {len(header)}")
        else:
            yield PromptRow(line, dict(zip(header, cells, strict=False)))


def _check_header(line: int, header: Sequence[str]) -> InvalidRow | None:
    names = [name.lower() for name in header if name]
    if "prompt" not in names:
        return InvalidRow(line, "header", ", ".join(header), "the header must contain a column 'prompt'")
    if twice := next((name for name in names if names.count(name) > 1), None):
        return InvalidRow(line, "header", twice, "each column name may appear only once")
    return None


FORMATS: Mapping[str, Callable[[Iterator[_Line | InvalidRow]], Rows]] = {
    ".txt": _prompts,
    ".jsonl": _objects,
    ".csv": _comma_separated,
    ".tsv": _tab_separated,
}
"""The functions that read the lines of a file, by the file's extension."""
