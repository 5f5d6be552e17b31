"""Reads requests from prompt files, one by one: a file may hold any number of them.

The columns of a table, and the keys of JSON objects, are the names of `KontextRequest`'s fields in any case, and the
protocol's ``input_image`` to ``input_image_4``. In a table, several images in ``input_images`` are parted by ``;``: a
data URI, which holds one, needs a column of its own. What is named otherwise is ignored, and can be asked for. Empty
cells and nulls are not given. Paths of images are relative to the folder of the file. The formats are described in
`kontext_async.bulk.rows`.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import attrs

from kontext_async.bulk.rows import FORMATS, Fault, Row, rows_of
from kontext_async.errors import InvalidRequest
from kontext_async.images import MAX_IMAGE_BYTES, detect_format
from kontext_async.models import MAX_INPUT_IMAGES, KontextRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from os import PathLike

__all__ = ["InvalidLine", "RequestReader", "Survey", "check_image_files", "read_requests", "survey_requests"]

FIELDS = tuple(attrs.fields_dict(KontextRequest))
IMAGE_FIELDS = ("input_image", *(f"input_image_{place}" for place in range(2, MAX_INPUT_IMAGES + 1)))
INTEGER = re.compile(r"[+-]?[0-9]{1,100}")
TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
MAX_IGNORED = 100
"""Names of ignored columns that are kept: the keys of JSON objects may be any number."""

REMEMBERED_FILES = 1024


class InvalidLine(InvalidRequest):
    """A line of a prompt file of which no request can be made.

    Attributes:
        path: The file.
        line: The number of the line, from 1; where a record spans lines, of the first.
    """

    def __init__(self, path: str | PathLike[str], line: int, fault: InvalidRequest) -> None:
        self.path = str(path)
        self.line = line
        super().__init__(fault.field, fault.value, fault.rule)
        self.value = fault.value
        self.args = (f"{self.path}, line {line}: {fault.args[0]}",)


class RequestReader(Iterator[KontextRequest]):
    """Reads a prompt file as it is iterated over; made by `read_requests`.

    After an `InvalidLine` it may be asked for the next request.

    Attributes:
        path: The file.
        line: The line that was read last, from 1; 0 before the first.
    """

    def __init__(self, path: Path, defaults: Mapping[str, Any]) -> None:
        self.path = path
        self.line = 0
        self._defaults = defaults
        self._rows = rows_of(path)
        self._ignored: dict[str, None] = {}

    @property
    def ignored(self) -> tuple[str, ...]:
        """The names of columns that are no fields, as far as the file was read; 100 of them at most."""
        return tuple(self._ignored)

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
        """Close the file, when it was not read to its end."""
        self._rows.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _request(self, row: Row | Fault) -> KontextRequest:
        if isinstance(row, Fault):
            raise InvalidRequest(row.name, row.value, row.rule)
        return KontextRequest.of({**self._defaults, **self._fields(row)})

    def _fields(self, row: Row) -> dict[str, Any]:
        """The fields that a row gives, as what a request takes."""
        given: dict[str, Any] = {}
        images: dict[str, Any] = {}
        for column, cell in row.cells.items():
            name = column.strip().lower()
            if name not in FIELDS and name not in IMAGE_FIELDS:
                if column and len(self._ignored) < MAX_IGNORED:
                    self._ignored[column] = None
            elif cell is None or (isinstance(cell, str) and not cell.strip() and name != "prompt"):
                continue
            elif name in given or name in images:
                raise InvalidRequest(name, cell, "a field must stand there once")
            elif name in IMAGE_FIELDS:
                images[name] = cell
            else:
                given[name] = _typed(name, cell) if isinstance(cell, str) and self._is_table else cell
        return given | self._images(given, images)

    @property
    def _is_table(self) -> bool:
        return self.path.suffix.lower() in (".csv", ".tsv")

    def _images(self, given: Mapping[str, Any], images: Mapping[str, Any]) -> dict[str, Any]:
        """The input images of a row, whichever way they are given, with their paths from the file's folder."""
        if not images and "input_images" not in given:
            return {}
        if images and "input_images" in given:
            raise InvalidRequest("input_images", given["input_images"], f"it cannot stand beside {', '.join(images)}")
        listed = given.get("input_images", [images[name] for name in IMAGE_FIELDS if name in images])
        sources = listed if isinstance(listed, list) else [listed]
        return {"input_images": [self._placed(source) for source in sources]}

    def _placed(self, source: object) -> object:
        if not isinstance(source, str) or not _is_path(source.strip()):
            return source.strip() if isinstance(source, str) else source
        return self.path.parent / source.strip()


@attrs.frozen(kw_only=True)
class Survey:
    """What a prompt file holds.

    Attributes:
        requests: How many requests can be made of it.
        faults: The first lines of which none can be made.
        ignored: The names of columns that are no fields.
    """

    requests: int
    faults: tuple[InvalidLine, ...]
    ignored: tuple[str, ...]


def read_requests(path: str | PathLike[str], *, defaults: Mapping[str, Any] | None = None) -> RequestReader:
    """Read the requests of a file, lazily.

    Args:
        path: A ``.txt``, ``.jsonl``, ``.csv`` or ``.tsv`` file.
        defaults: Fields of `KontextRequest` for those requests that do not give their own.

    Returns:
        An iterator of requests. Going on, it raises `InvalidLine` for a line of which no request can be made.

    Raises:
        InvalidRequest: There is no such file, or its extension is not known.
    """
    file = Path(path)
    if file.suffix.lower() not in FORMATS:
        raise InvalidRequest("path", str(path), f"a prompt file's extension must be one of {', '.join(FORMATS)}")
    try:
        if not file.is_file():
            file.open("rb").close()
            raise InvalidRequest("path", str(path), "a prompt file must be a regular file: it is read twice")
    except OSError as error:
        raise _unreadable(file, error) from error
    return RequestReader(file, dict(defaults or {}))


def survey_requests(
    path: str | PathLike[str], *, defaults: Mapping[str, Any] | None = None, max_faults: int = 20
) -> Survey:
    """Read a file once from its beginning to its end, before anything of it is submitted, and say what is wrong.

    Input images that are files are looked at, too: whether they are there, their size, and their kind by their first
    bytes. The memory that this takes does not grow with the file. Blocks.

    Args:
        path: As for `read_requests`.
        defaults: As for `read_requests`.
        max_faults: Where this many lines are wrong, the rest is not read.

    Raises:
        InvalidRequest: There is no such file, it cannot be read, or its extension is not known.
    """
    count = 0
    rule_against = lru_cache(REMEMBERED_FILES)(_rule_against)
    faults: list[InvalidLine] = []
    with read_requests(path, defaults=defaults) as reader:
        while len(faults) < max_faults:
            try:
                _check_images(next(reader), rule_against)
                count += 1
            except StopIteration:
                break
            except InvalidLine as fault:
                faults.append(fault)
            except InvalidRequest as fault:
                if fault.field == "path":
                    raise
                faults.append(InvalidLine(reader.path, reader.line, fault))
    return Survey(requests=count, faults=tuple(faults), ignored=reader.ignored)


def check_image_files(request: KontextRequest) -> None:
    """Refuse a request whose input images are files that are missing, too large, or no images. Blocks.

    Raises:
        InvalidRequest: Of ``input_images``.
    """
    _check_images(request, _rule_against)


def _check_images(request: KontextRequest, rule_against: Callable[[Path], str | None]) -> None:
    for index, source in enumerate(request.input_images):
        if isinstance(source, Path) or (isinstance(source, str) and _is_path(source)):
            rule = rule_against(Path(source))
            if rule:
                raise InvalidRequest(f"input_images[{index}]", str(source), rule)


def _rule_against(path: Path) -> str | None:
    """The rule that a file breaks."""
    try:
        with path.open("rb") as file:
            head = file.read(12)
            size = os.fstat(file.fileno()).st_size
    except OSError as error:
        return f"it must be readable: {error.strerror or error}"
    if not head:
        return "an image must not be empty"
    if size > MAX_IMAGE_BYTES:
        return f"an image may have at most {MAX_IMAGE_BYTES} bytes"
    return None if detect_format(head) else "it must hold an image: JPEG, PNG, WebP or GIF"


def _is_path(source: str) -> bool:
    return bool(source) and not source.lower().startswith(("http://", "https://", "data:"))


def _typed(name: str, cell: str) -> object:
    """What stands in a table's cell, as the type of its field; what does not fit is left for the request to refuse."""
    convert = CELLS.get(name)
    return convert(cell.strip()) if convert else cell if name == "prompt" else cell.strip()


def _integer(text: str) -> object:
    return int(text) if INTEGER.fullmatch(text) else text


def _truth(text: str) -> object:
    return TRUTH.get(text.lower(), text)


def _list(text: str) -> Sequence[str]:
    return [part.strip() for part in text.split(";") if part.strip()]


CELLS: Mapping[str, Callable[[str], object]] = {
    "seed": _integer,
    "safety_tolerance": _integer,
    "prompt_upsampling": _truth,
    "input_images": _list,
}


def _unreadable(path: Path, error: OSError) -> InvalidRequest:
    return InvalidRequest("path", str(path), f"a prompt file must be readable: {error.strerror or error}")
