"""Splits prompt files into rows of cells. `kontext_async.bulk.prompt_files` builds requests from them.

Formats, by extension: ``.txt`` (a prompt a line), ``.jsonl`` (a string or an object a line, https://jsonlines.org),
``.csv`` and ``.tsv`` (`kontext_async.bulk.tables`). `kontext_async.bulk.lines` decodes them.

Invalid lines are yielded, not raised, so that reading continues with the next line. Lines without a visible character
are skipped.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeAlias

from attrs import frozen

from kontext_async.bulk.lines import InvalidRow, Line, is_blank
from kontext_async.bulk.tables import read_comma_separated, read_tab_separated

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Mapping, Sequence

    from kontext_async.bulk.tables import Lines, Records

__all__ = ["FORMATS", "InvalidRow", "PromptRow"]


@frozen
class PromptRow:
    """The cells of one request.

    Attributes:
        line: The line number, from 1; if the row spans several lines, the number of the first.
        cells: The values by column name. They are text unless they come from JSON.
    """

    line: int
    cells: Mapping[str, Any]


Rows: TypeAlias = "Generator[PromptRow | InvalidRow, None, None]"


def _prompts(lines: Lines) -> Rows:
    for line in lines:
        if isinstance(line, InvalidRow):
            yield line
        elif not is_blank(line.text):
            yield PromptRow(line.number, {"prompt": line.text.rstrip("\r\n")})


def _objects(lines: Lines) -> Rows:
    for line in lines:
        if isinstance(line, InvalidRow):
            yield line
        elif not is_blank(line.text):
            yield _object(line)


def _object(line: Line) -> PromptRow | InvalidRow:
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


def _tab_separated(lines: Lines) -> Rows:
    return _table(read_tab_separated(lines))


def _comma_separated(lines: Lines) -> Rows:
    return _table(read_comma_separated(lines))


def _table(records: Records) -> Rows:
    header: list[str] | None = None
    for record in records:
        if isinstance(record, InvalidRow):
            yield record
            continue
        line, cells = record
        if all(is_blank(cell) for cell in cells):
            continue
        if header is None:
            header = [cell.strip() for cell in cells]
            if invalid := _check_header(line, header):
                yield invalid
                return
        elif not all(is_blank(cell) for cell in cells[len(header) :]):
            yield InvalidRow(line, "number of cells", len(cells), f"the header has {len(header)}")
        else:
            yield PromptRow(line, dict(zip(header, cells, strict=False)))


def _check_header(line: int, header: Sequence[str]) -> InvalidRow | None:
    names = [name.lower() for name in header if name]
    if "prompt" not in names:
        rule = "the header must contain a column 'prompt'; ',', ';' or a tab separates the columns"
        return InvalidRow(line, "header", ", ".join(header), rule)
    if twice := next((name for name in names if names.count(name) > 1), None):
        return InvalidRow(line, "header", twice, "each column name may appear only once")
    return None


FORMATS: Mapping[str, Callable[[Lines], Rows]] = {
    ".txt": _prompts,
    ".jsonl": _objects,
    ".csv": _comma_separated,
    ".tsv": _tab_separated,
}
"""The functions that read the lines of a file, by the file's extension."""
