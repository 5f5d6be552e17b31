"""The rows of a prompt file: what stands where, before it is known whether a request can be made of it.

Formats, by extension: ``.txt`` (a prompt a line), ``.jsonl`` (a string or an object a line, https://jsonlines.org),
``.csv`` (RFC 4180, strictly), ``.tsv`` (https://www.iana.org/assignments/media-types/text/tab-separated-values: a tab
ends a cell, and a quotation mark is a letter like any other). All are UTF-8, with or without a byte order mark, with
any line ends, and are read line by line: a file may be of any length.

Faults of a line are yielded, not raised, so that a reader may go on to the next line.
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

__all__ = ["FORMATS", "MAX_LINE_LENGTH", "Fault", "Row", "rows_of"]

MAX_LINE_LENGTH = 2 * MAX_IMAGE_BYTES
"""Characters of one line, at most: room for an image of the largest size as a data URI."""

UNDECODABLE = re.compile("[\udc80-\udcff]")
"""What `surrogateescape` makes of a byte that is no UTF-8."""


@frozen
class Row:
    """One request, as its line has it.

    Attributes:
        line: The number of the line, from 1; of several, the first.
        cells: The values by the names of their columns. Text, unless they come from JSON.
    """

    line: int
    cells: Mapping[str, Any]


@frozen
class Fault:
    """A line that is no row.

    Attributes:
        line: The number of the line, from 1.
        name: What is wrong there.
        value: The value that is wrong.
        rule: What is allowed.
    """

    line: int
    name: str
    value: object
    rule: str


@frozen
class _Line:
    number: int
    text: str = field(repr=False)


Rows: TypeAlias = "Generator[Row | Fault, None, None]"


def rows_of(path: Path) -> Rows:
    """The rows of a file, and the faults of those lines that are none. Blank lines are passed over.

    Raises:
        OSError: It cannot be read.
    """
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        yield from FORMATS[path.suffix.lower()](_lines(file))


def _lines(file: TextIO) -> Iterator[_Line | Fault]:
    """The lines with their ends, and what is wrong with a line whatever the format."""
    number = 0
    while text := file.readline(MAX_LINE_LENGTH):
        number += 1
        if len(text) == MAX_LINE_LENGTH and not text.endswith(("\n", "\r")):
            _pass_over(file)
            yield Fault(number, "line", text[:40], f"a line may have at most {MAX_LINE_LENGTH} characters")
        elif UNDECODABLE.search(text):
            shown = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
            yield Fault(number, "line", shown, "a prompt file must be UTF-8")
        elif "\0" in text:
            yield Fault(number, "line", text, "a line must not hold NUL characters")
        else:
            yield _Line(number, text)


def _pass_over(file: TextIO) -> None:
    while (rest := file.readline(MAX_LINE_LENGTH)) and not rest.endswith(("\n", "\r")):
        pass


def _prompts(lines: Iterable[_Line | Fault]) -> Rows:
    for line in lines:
        if isinstance(line, Fault):
            yield line
        elif line.text.strip():
            yield Row(line.number, {"prompt": line.text.rstrip("\r\n")})


def _objects(lines: Iterable[_Line | Fault]) -> Rows:
    for line in lines:
        if isinstance(line, Fault):
            yield line
        elif line.text.strip():
            yield _object(line)


def _object(line: _Line) -> Row | Fault:
    try:
        value = json.loads(line.text)
    except json.JSONDecodeError as error:
        return Fault(line.number, "line", line.text.strip(), f"it must be JSON: {error.msg} at column {error.colno}")
    except (ValueError, RecursionError):
        return Fault(line.number, "line", line.text.strip(), "it must be JSON without extremes: numbers, depth")
    if isinstance(value, str):
        return Row(line.number, {"prompt": value})
    if isinstance(value, dict):
        return Row(line.number, value)
    return Fault(line.number, "line", line.text.strip(), "it must be a prompt as a string, or an object of fields")


def _tab_separated(lines: Iterable[_Line | Fault]) -> Rows:
    def records() -> Iterator[tuple[int, list[str]] | Fault]:
        for line in lines:
            yield line if isinstance(line, Fault) else (line.number, line.text.rstrip("\r\n").split("\t"))

    return _table(records())


def _comma_separated(lines: Iterable[_Line | Fault]) -> Rows:
    return _table(_csv_records(lines))


def _csv_records(lines: Iterable[_Line | Fault]) -> Iterator[tuple[int, list[str]] | Fault]:
    """A record may span lines; behind a line that cannot be read, it is not known where the next record begins."""
    last, latest = 0, ""
    fault: Fault | None = None

    def texts() -> Iterator[str]:
        nonlocal last, latest, fault
        for line in lines:
            if isinstance(line, Fault):
                fault = line
                return
            last, latest = line.number, line.text
            yield line.text

    reader = csv.reader(texts(), strict=True)
    while True:
        first = last + 1
        try:
            record = next(reader, None)
        except csv.Error as error:
            yield fault or Fault(first, "line", latest, f"it must be CSV, quoted as RFC 4180 says: {error}")
            return
        if fault:
            yield fault
            return
        if record is None:
            return
        yield first, record


def _table(records: Iterator[tuple[int, list[str]] | Fault]) -> Rows:
    header: list[str] | None = None
    for record in records:
        if isinstance(record, Fault):
            yield record
            continue
        line, cells = record
        if not any(cell.strip() for cell in cells):
            continue
        if header is None:
            header = [cell.strip() for cell in cells]
            if fault := _header_fault(line, header):
                yield fault
                return
        elif any(cell.strip() for cell in cells[len(header) :]):
            yield Fault(line, "number of cells", len(cells), f"the header has {len(header)}")
        else:
            yield Row(line, dict(zip(header, cells, strict=False)))


def _header_fault(line: int, header: Sequence[str]) -> Fault | None:
    names = [name.lower() for name in header if name]
    if "prompt" not in names:
        return Fault(line, "header", ", ".join(header), "there must be a column 'prompt'")
    if twice := next((name for name in names if names.count(name) > 1), None):
        return Fault(line, "header", twice, "a column's name must stand there once")
    return None


FORMATS: Mapping[str, Callable[[Iterator[_Line | Fault]], Rows]] = {
    ".txt": _prompts,
    ".jsonl": _objects,
    ".csv": _comma_separated,
    ".tsv": _tab_separated,
}
"""What reads the lines of a file, by the file's extension."""
