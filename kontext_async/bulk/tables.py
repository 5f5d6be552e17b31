"""Splits the lines of tables into records: comma-separated and tab-separated values, as programs and Excel write them.

- ``.csv`` is RFC 4180, strictly. Cells are separated by ``,``, or by ``;`` or a tab if the header says so, or by the
  character that Excel's first line ``sep=;`` names.
- ``.tsv`` is https://www.iana.org/assignments/media-types/text/tab-separated-values: a tab ends a cell, and quotation
  marks are ordinary characters. Excel puts a cell with a line break, a tab or a quotation mark in quotation marks, and
  doubles those inside: such a cell is read as Excel means it.
"""

from __future__ import annotations

import csv
import re
import threading
from collections import deque
from itertools import chain
from typing import TYPE_CHECKING, TypeAlias

from kontext_async.bulk.lines import MAX_LINE_LENGTH, InvalidRow, Line, is_blank

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Lines", "Records", "read_comma_separated", "read_tab_separated"]

Lines: TypeAlias = "Iterator[Line | InvalidRow]"
Records: TypeAlias = "Iterator[tuple[int, list[str]] | InvalidRow]"
"""Records with the number of their first line. After an invalid line of a CSV file, the start of the next record is
unknown, and reading ends."""

DELIMITERS = (",", ";", "\t")
SEPARATOR_LINE = re.compile(r'"?sep=([^"\r\n])"?[,;\t]*', re.IGNORECASE)
"""Excel's own first line of a CSV file."""

QUOTED_CELL = re.compile(r'"([^"]*(?:""[^"]*)*)"(?=\t|\Z)')
OPEN_CELL = re.compile(r'"[^"]*(?:""[^"]*)*\Z')
QUOTED_BY_EXCEL = re.compile(r'""|[\t\r\n]')
LINE_END = re.compile(r"[\r\n]")
LINES_OF_A_CELL = 1000
"""Lines that one quoted cell of a TSV file may have. If it has no end by then, its quotation mark is ordinary."""

_field_limit = threading.Lock()


def read_comma_separated(lines: Lines) -> Records:
    """Yield the records of a CSV file, which may span lines."""
    delimiter, lines = _find_delimiter(lines)
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

    reader = csv.reader(texts(), delimiter=delimiter, strict=True)
    while True:
        first = last + 1
        try:
            record = _next_record(reader)
        except csv.Error as error:
            yield invalid or InvalidRow(first, "line", latest, f"it must be CSV, quoted as in RFC 4180: {error}")
            return
        if invalid:
            yield invalid
            return
        if record is None:
            return
        yield first, record


def read_tab_separated(lines: Lines) -> Records:
    """Yield the records of a TSV file. Only a cell that Excel quoted may span lines."""
    _, lines = _find_delimiter(lines)
    ahead: deque[Line | InvalidRow] = deque()
    while line := ahead.popleft() if ahead else next(lines, None):
        if isinstance(line, InvalidRow):
            yield line
            continue
        read = [line]
        cells = _split_cells(line.text)
        while cells is None and len(read) < LINES_OF_A_CELL:
            more = ahead.popleft() if ahead else next(lines, None)
            if not isinstance(more, Line):
                ahead.extendleft([more] if more else [])
                break
            read.append(more)
            cells = _split_cells("".join(each.text for each in read))
        if not cells:  # the quotation mark is an ordinary character
            ahead.extendleft(reversed(read[1:]))
            cells = line.text.rstrip("\r\n").split("\t")
        yield line.number, cells


def _find_delimiter(lines: Lines) -> tuple[str, Lines]:
    """Return the character that separates the cells, and the lines without Excel's line that names it."""
    head: list[Line | InvalidRow] = []
    for line in lines:
        head.append(line)
        if isinstance(line, InvalidRow):
            break
        if is_blank(line.text):
            continue
        if named := SEPARATOR_LINE.fullmatch(line.text.rstrip("\r\n")):
            head[-1] = Line(line.number, "\n")
            return named[1], chain(head, lines)
        return _delimiter_of(line.text), chain(head, lines)
    return DELIMITERS[0], chain(head, lines)


def _delimiter_of(header: str) -> str:
    """Return the delimiter with which a header has the column ``prompt``; a comma if none has."""
    for delimiter in DELIMITERS:
        try:
            cells = _next_record(csv.reader([header], delimiter=delimiter, strict=True)) or []
        except csv.Error:  # a cell of the header spans lines
            continue
        if any(cell.strip().lower() == "prompt" for cell in cells):
            return delimiter
    return DELIMITERS[0]


def _next_record(reader: Iterator[list[str]]) -> list[str] | None:
    """Read a record whose cells may be as long as a line: data URIs are longer than the csv module's limit.

    That limit belongs to the whole process, so it is raised for the length of this call only.
    """
    with _field_limit:
        limit = csv.field_size_limit(MAX_LINE_LENGTH)
        try:
            return next(reader, None)
        finally:
            csv.field_size_limit(limit)


def _split_cells(text: str) -> list[str] | None:
    """Split a record at its tabs; return None while a cell that Excel quoted is open.

    Of lines that Excel did not join, return no cells.
    """
    text = text.rstrip("\r\n")
    cells = []
    start = 0
    while start <= len(text):
        quoted = QUOTED_CELL.match(text, start)
        if quoted and QUOTED_BY_EXCEL.search(quoted[1]):
            cells.append(quoted[1].replace('""', '"'))
            start = quoted.end() + 1
        elif not quoted and OPEN_CELL.match(text, start):
            return None
        else:
            end = text.find("\t", start)
            end = len(text) if end < 0 else end
            if LINE_END.search(text, start, end):
                return []
            cells.append(text[start:end])
            start = end + 1
    return cells
