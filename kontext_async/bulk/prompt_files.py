"""Reads requests from prompt files, one at a time: a file may contain any number of them.

The columns of a table, and the keys of JSON objects, are the names of `KontextRequest`'s fields in upper or lower case,
and the protocol's ``input_image`` to ``input_image_4``. In a table, several images in ``input_images`` are separated by
``;``. A data URI contains one, and therefore needs a column of its own. ``metadata`` is a JSON object. Columns with
other names are ignored, and `RequestReader.ignored` lists them. Empty cells and nulls count as missing. Paths of images
are relative to the folder of the file. `kontext_async.bulk.prompt_formats` describes the formats.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import attrs

from kontext_async.bulk.lines import LineReader, is_blank
from kontext_async.bulk.prompt_formats import FORMATS, InvalidRow, PromptRow
from kontext_async.errors import InvalidRequest
from kontext_async.images import MAX_IMAGE_BYTES, detect_format, is_path, resolve_path
from kontext_async.models import KontextRequest
from kontext_async.request_rules import MAX_INPUT_IMAGES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from os import PathLike

__all__ = [
    "InvalidLine",
    "RequestReader",
    "ValidationProgress",
    "ValidationReport",
    "check_image_files",
    "read_requests",
    "validate_requests",
]

FIELDS = frozenset(attrs.fields_dict(KontextRequest))
IMAGE_FIELDS = ("input_image", *(f"input_image_{place}" for place in range(2, MAX_INPUT_IMAGES + 1)))
INTEGER = re.compile(r"[+-]?[0-9]{1,100}")
TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
MAX_IGNORED = 100
"""Names of ignored columns that are remembered: JSON objects may have any number of keys."""

REMEMBERED_FILES = 1024

BYTES_PER_REPORT = 64 * 1024
"""The bytes of a file between two reports about how far its validation is."""


class InvalidLine(InvalidRequest):
    """A line of a prompt file that is not a valid request. Nothing was submitted for it.

    Attributes:
        path: The file.
        line: The line number, from 1; if a record spans several lines, the number of the first.
    """

    def __init__(self, path: str | PathLike[str], line: int, fault: InvalidRequest) -> None:
        self.path = str(path)
        self.line = line
        super().__init__(fault.field, fault.value, fault.rule)
        self.value = fault.value
        self.args = (f"{self.path}, line {line}: {fault.args[0]}",)


class RequestReader(Iterator[KontextRequest]):
    """An iterator over the requests of a prompt file, returned by `read_requests`. It reads the file lazily.

    After an `InvalidLine`, ``next`` returns the request of the following line.

    Attributes:
        path: The file.
        line: The number of the line that was read last, from 1; 0 before the first.
    """

    def __init__(self, path: Path, defaults: Mapping[str, Any]) -> None:
        self.path = path
        self.line = 0
        self._defaults = defaults
        file = path.absolute()  # the process may change its working directory while the file is read
        self._folder = file.parent
        self._is_table = file.suffix.lower() in (".csv", ".tsv")
        self._lines = LineReader(file)
        self._rows = FORMATS[file.suffix.lower()](self._lines)
        self._ignored: dict[str, None] = {}

    @property
    def ignored(self) -> tuple[str, ...]:
        """The names of ignored columns in the part of the file that was read; at most 100."""
        return tuple(self._ignored)

    @property
    def position(self) -> int:
        """The number of bytes of the file that were read; 0 before the first line and after the last one."""
        return self._lines.position

    @property
    def size(self) -> int:
        """The size of the file in bytes; 0 before the first line."""
        return self._lines.size

    def __next__(self) -> KontextRequest:
        try:
            row = next(self._rows)
        except OSError as error:
            raise _unreadable(self.path, error) from error
        self.line = row.line
        try:
            return self._request(row)
        except InvalidRequest as fault:
            raise InvalidLine(self.path, row.line, fault) from None

    def close(self) -> None:
        """Close the file before its end is reached."""
        self._rows.close()
        self._lines.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _request(self, row: PromptRow | InvalidRow) -> KontextRequest:
        if isinstance(row, InvalidRow):
            raise InvalidRequest(row.name, row.value, row.rule)
        given = self._fields(row)
        if given.keys() == {"prompt"}:
            return KontextRequest.of(self._template, **given)
        return KontextRequest.of({}, **{**self._defaults, **given})

    @cached_property
    def _template(self) -> KontextRequest:
        """The request with the defaults: most lines have nothing but another prompt."""
        return KontextRequest.of("a prompt", **self._defaults)

    def _fields(self, row: PromptRow) -> dict[str, Any]:
        """Return the fields of a row as the arguments of a request."""
        given: dict[str, Any] = {}
        images: dict[str, Any] = {}
        for column, cell in row.cells.items():
            name = column.strip().lower()
            if name not in FIELDS and name not in IMAGE_FIELDS:
                if column and len(self._ignored) < MAX_IGNORED:
                    self._ignored[column] = None
            elif cell is None or (isinstance(cell, str) and is_blank(cell) and name != "prompt"):
                continue
            elif name in given or name in images:
                raise InvalidRequest(name, cell, "each field may be given only once")
            elif name in IMAGE_FIELDS:
                images[name] = cell
            elif isinstance(cell, str) and is_blank(cell):  # a prompt
                given[name] = ""
            else:
                given[name] = _typed(name, cell) if isinstance(cell, str) and self._is_table else cell
        return given | self._images(given, images)

    def _images(self, given: Mapping[str, Any], images: Mapping[str, Any]) -> dict[str, Any]:
        """Return the input images of a row, from both notations, with their paths relative to the file's folder."""
        if not images and "input_images" not in given:
            return {}
        if images and "input_images" in given:
            raise InvalidRequest(
                "input_images", given["input_images"], f"it cannot be combined with {', '.join(images)}"
            )
        listed = given.get("input_images", [images[name] for name in IMAGE_FIELDS if name in images])
        sources = listed if isinstance(listed, list) else [listed]
        return {"input_images": [self._placed(source) for source in sources]}

    def _placed(self, source: object) -> object:
        if not isinstance(source, str) or not is_path(source := source.strip()):
            return source
        try:
            return self._folder / resolve_path(source)
        except ValueError:  # the request says what is wrong
            return source


@attrs.frozen(kw_only=True)
class ValidationProgress:
    """The part of a file that `validate_requests` has read.

    Attributes:
        line: The number of the line that was read last, from 1.
        position: The number of bytes that were read.
        size: The size of the file in bytes.
    """

    line: int
    position: int
    size: int


@attrs.frozen(kw_only=True)
class ValidationReport:
    """The result of `validate_requests`.

    Attributes:
        requests: The number of valid requests in the file.
        invalid: The first lines that are not valid requests.
        ignored: The names of columns that are ignored, because they are not fields of a request.
    """

    requests: int
    invalid: tuple[InvalidLine, ...]
    ignored: tuple[str, ...]


def read_requests(path: str | PathLike[str], *, defaults: Mapping[str, Any] | None = None) -> RequestReader:
    """Read the requests of a file, lazily.

    Args:
        path: A ``.txt``, ``.jsonl``, ``.csv`` or ``.tsv`` file.
        defaults: Fields of `KontextRequest` for requests that do not give their own.

    Returns:
        An iterator of requests. It raises `InvalidLine` for a line that is not a valid request, and can be continued.

    Raises:
        InvalidRequest: The file does not exist, cannot be read, or has an unknown extension.
    """
    file = Path(path)
    if file.suffix.lower() not in FORMATS:
        raise InvalidRequest("path", str(path), f"a prompt file's extension must be one of {', '.join(FORMATS)}")
    try:
        if not file.is_file():
            file.open("rb").close()
            raise InvalidRequest("path", str(path), "a prompt file must be a regular file, because it is read twice")
    except OSError as error:
        raise _unreadable(file, error) from error
    return RequestReader(file, dict(defaults or {}))


def validate_requests(
    path: str | PathLike[str],
    *,
    defaults: Mapping[str, Any] | None = None,
    max_invalid: int = 20,
    on_progress: Callable[[ValidationProgress], object] | None = None,
) -> ValidationReport:
    """Read a whole file before any of its requests is submitted, and report the invalid lines. Blocks.

    Input images that are files are checked too: they must exist, must not be too large, and must start like an image.
    The memory use does not depend on the size of the file.

    Args:
        path: As for `read_requests`.
        defaults: As for `read_requests`.
        max_invalid: The number of invalid lines after which reading stops.
        on_progress: Is called after every 64 KiB of the file. If it raises, the validation ends with that error.

    Returns:
        The number of valid requests, the invalid lines, and the ignored columns.

    Raises:
        InvalidRequest: The file does not exist, cannot be read, or has an unknown extension.
    """
    count = 0
    reported = 0
    rule_against = lru_cache(REMEMBERED_FILES)(_rule_against)
    invalid: list[InvalidLine] = []
    with read_requests(path, defaults=defaults) as reader:
        while len(invalid) < max_invalid:
            try:
                _check_images(next(reader), rule_against)
                count += 1
            except StopIteration:
                break
            except InvalidLine as fault:
                invalid.append(_without_frames(fault))
            except InvalidRequest as fault:
                if fault.field == "path":
                    raise
                invalid.append(_without_frames(InvalidLine(reader.path, reader.line, fault)))
            if on_progress and reader.position >= reported + BYTES_PER_REPORT:
                reported = reader.position
                on_progress(ValidationProgress(line=reader.line, position=reported, size=reader.size))
    return ValidationReport(requests=count, invalid=tuple(invalid), ignored=reader.ignored)


def _without_frames(fault: InvalidLine) -> InvalidLine:
    """Drop the frames that an error keeps alive: they have the whole line, which may be as long as an image."""
    fault.__context__ = None
    return fault.with_traceback(None)


def check_image_files(request: KontextRequest) -> None:
    """Check the input images of a request that are files: they must exist, fit the size limit, and be images. Blocks.

    Args:
        request: The request.

    Raises:
        InvalidRequest: An input image is missing, too large, or not an image.
    """
    _check_images(request, _rule_against)


def _check_images(request: KontextRequest, rule_against: Callable[[Path], str | None]) -> None:
    for index, source in enumerate(request.input_images):
        if isinstance(source, str | Path) and is_path(source):
            rule = rule_against(resolve_path(source))
            if rule:
                raise InvalidRequest(f"input_images[{index}]", str(source), rule)


def _rule_against(path: Path) -> str | None:
    """Return the rule that a file breaks; None if it breaks none."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        return f"the file must be readable: {error.strerror or error}"
    if not head:
        return "an image must not be empty"
    if size > MAX_IMAGE_BYTES:
        return f"an image may have at most {MAX_IMAGE_BYTES} bytes"
    return None if detect_format(head) else "it must hold an image: JPEG, PNG, WebP or GIF"


def _typed(name: str, cell: str) -> object:
    """Convert the text of a cell to the type of its field. Text that does not fit stays; the request rejects it."""
    convert = CELLS.get(name)
    return convert(cell.strip()) if convert else cell if name == "prompt" else cell.strip()


def _integer(text: str) -> object:
    return int(text) if INTEGER.fullmatch(text) else text


def _truth(text: str) -> object:
    return TRUTH.get(text.lower(), text)


def _list(text: str) -> Sequence[str]:
    return [part.strip() for part in text.split(";") if part.strip()]


def _object(text: str) -> object:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):  # the request says what is wrong
        return text


CELLS: Mapping[str, Callable[[str], object]] = {
    "seed": _integer,
    "safety_tolerance": _integer,
    "prompt_upsampling": _truth,
    "moderation": _truth,
    "metadata": _object,
    "input_images": _list,
}


def _unreadable(path: Path, error: OSError) -> InvalidRequest:
    return InvalidRequest("path", str(path), f"a prompt file must be readable: {error.strerror or error}")
