"""The meaning of a response's head for a download: RFC 9110, sections 8.8, 13.1.5 and 14. No await, no clock.

A download that was interrupted continues with the missing bytes, if it is certain that they belong to the same version
of the file. `judge` has the rules:

======================================  ===============================================  ===============================
status                                  the request asked for the whole file             for the missing bytes
======================================  ===============================================  ===============================
200, 203                                `Verdict.WHOLE`                                  `Verdict.WHOLE`
206, which fits the part                `Verdict.WHOLE` if it begins at 0                `Verdict.REST`
any other 206, 416                      `Verdict.TRANSIENT`                              `Verdict.BEGIN_AGAIN`
202, 204                                `Verdict.NOT_READY`                              `Verdict.BEGIN_AGAIN`
404                                     `Verdict.MISSING`                                `Verdict.BEGIN_AGAIN`
403, 410                                `Verdict.EXPIRED`                                `Verdict.BEGIN_AGAIN`
406                                     `Verdict.NOT_ACCEPTABLE`                         `Verdict.BEGIN_AGAIN`
408, 425, 429, 5xx                      `Verdict.TRANSIENT`                              `Verdict.TRANSIENT`
any other                               `Verdict.REFUSED`                                `Verdict.BEGIN_AGAIN`
======================================  ===============================================  ===============================
"""

from __future__ import annotations

import enum
import re
from http import HTTPStatus
from typing import TYPE_CHECKING

from attrs import frozen

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Head", "Part", "Verdict", "Version", "judge", "read_head"]

CONTENT_RANGE = re.compile(r"bytes\s+([0-9]{1,18})-[0-9]{1,18}/(?:([0-9]{1,18})|\*)", re.IGNORECASE)
COUNT = re.compile(r"[0-9]{1,18}")


class Verdict(enum.Enum):
    """The meaning of a response.

    Attributes:
        WHOLE: Its body is the whole file.
        REST: Its body continues the part.
        BEGIN_AGAIN: The part cannot be continued: the whole file is needed again, by a request without a range.
        NOT_READY: The file may come in a moment.
        MISSING: The file may come in a moment, or its URL has expired.
        EXPIRED: The URL has expired.
        NOT_ACCEPTABLE: The server has the file only in formats that were not requested.
        TRANSIENT: Another attempt may succeed.
        REFUSED: Another attempt will not succeed.
    """

    WHOLE = enum.auto()
    REST = enum.auto()
    BEGIN_AGAIN = enum.auto()
    NOT_READY = enum.auto()
    MISSING = enum.auto()
    EXPIRED = enum.auto()
    NOT_ACCEPTABLE = enum.auto()
    TRANSIENT = enum.auto()
    REFUSED = enum.auto()


VERDICTS: dict[int, Verdict] = {
    HTTPStatus.OK: Verdict.WHOLE,
    HTTPStatus.NON_AUTHORITATIVE_INFORMATION: Verdict.WHOLE,
    HTTPStatus.ACCEPTED: Verdict.NOT_READY,
    HTTPStatus.NO_CONTENT: Verdict.NOT_READY,
    HTTPStatus.NOT_FOUND: Verdict.MISSING,
    HTTPStatus.FORBIDDEN: Verdict.EXPIRED,
    HTTPStatus.GONE: Verdict.EXPIRED,
    HTTPStatus.NOT_ACCEPTABLE: Verdict.NOT_ACCEPTABLE,
    HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE: Verdict.TRANSIENT,
    HTTPStatus.REQUEST_TIMEOUT: Verdict.TRANSIENT,
    HTTPStatus.TOO_EARLY: Verdict.TRANSIENT,
    HTTPStatus.TOO_MANY_REQUESTS: Verdict.TRANSIENT,
}
"""The statuses whose meaning does not depend on a range; other 5xx are transient too."""

ABOUT_THE_RANGE = frozenset(Verdict) - {Verdict.WHOLE, Verdict.TRANSIENT}
"""Verdicts that may be due to the range: a part came from this URL, so a request without it comes first."""


@frozen(kw_only=True)
class Version:
    """The version of a file. A field is None if the response does not have it.

    Attributes:
        tag: The ``ETag``.
        modified: The ``Last-Modified``.
        total: The size of the whole file, in bytes.
        is_encoded: True if the bytes that arrive are not those that a range counts.
    """

    tag: str | None = None
    modified: str | None = None
    total: int | None = None
    is_encoded: bool = False

    @property
    def validator(self) -> str | None:
        """The value for ``If-Range``: a strong tag, or else the date. None if the file cannot be continued."""
        if self.is_encoded:
            return None
        return self.tag if self.tag and self.tag.startswith('"') else self.modified

    def differs_from(self, other: Version) -> bool:
        """Return True if any field that both have says that these are two versions."""
        return self.is_encoded != other.is_encoded or any(
            mine is not None and theirs is not None and mine != theirs
            for mine, theirs in (
                (self.tag and self.tag.removeprefix("W/"), other.tag and other.tag.removeprefix("W/")),
                (self.modified, other.modified),
                (self.total, other.total),
            )
        )


@frozen(kw_only=True)
class Part:
    """The start of a file that arrived earlier.

    Attributes:
        size: Its size, in bytes.
        version: The version of the file.
    """

    size: int
    version: Version


@frozen(kw_only=True)
class Head:
    """The head of a response.

    Attributes:
        status: The HTTP status.
        start: The offset of the body in the file; None if a 206 does not have it.
        version: The version of the file.
    """

    status: int
    start: int | None
    version: Version


def read_head(status: int, headers: Mapping[str, str]) -> Head:
    """Read the head of a response.

    Args:
        status: The HTTP status.
        headers: The headers; their names are looked up in any case.
    """
    is_encoded = headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity")
    start: int | None = 0
    total: int | None = None
    if status == HTTPStatus.PARTIAL_CONTENT:
        matched = CONTENT_RANGE.fullmatch(headers.get("Content-Range", "").strip())
        start = int(matched[1]) if matched else None
        total = int(matched[2]) if matched and matched[2] else None
    elif not is_encoded:
        length = headers.get("Content-Length", "").strip()
        total = int(length) if COUNT.fullmatch(length) else None
    version = Version(
        tag=headers.get("ETag"), modified=headers.get("Last-Modified"), total=total, is_encoded=is_encoded
    )
    return Head(status=status, start=start, version=version)


def judge(head: Head, part: Part | None) -> Verdict:
    """Decide what a response means.

    Args:
        head: The head of the response.
        part: The part whose rest was requested; None if the whole file was requested.
    """
    if head.status == HTTPStatus.PARTIAL_CONTENT:
        if part is None:
            return Verdict.WHOLE if head.start == 0 else Verdict.TRANSIENT
        fits = head.start == part.size and not head.version.differs_from(part.version)
        return Verdict.REST if fits else Verdict.BEGIN_AGAIN
    if head.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and part:
        return Verdict.BEGIN_AGAIN
    other = Verdict.TRANSIENT if head.status >= HTTPStatus.INTERNAL_SERVER_ERROR else Verdict.REFUSED
    verdict = VERDICTS.get(head.status, other)
    return Verdict.BEGIN_AGAIN if part and verdict in ABOUT_THE_RANGE else verdict
